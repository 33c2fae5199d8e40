// A golden case's prompt and continuation, for commands that take a file of token ids.
#ifndef SALAMANDER_TESTS_CLIENTS_GOLDEN_PROMPT_H_
#define SALAMANDER_TESTS_CLIENTS_GOLDEN_PROMPT_H_

#include <cstdint>
#include <string>
#include <vector>

namespace salamander::testing {

struct GoldenPrompt {
  std::string checkpoint;   // folder
  std::string prompt_file;  // JSON array of token ids, in the test's temporary folder
  std::vector<int32_t> continuation;
};

// Fails the running test if the case cannot be read.
GoldenPrompt LoadGoldenPrompt(const std::string& name);

}  // namespace salamander::testing

#endif  // SALAMANDER_TESTS_CLIENTS_GOLDEN_PROMPT_H_
