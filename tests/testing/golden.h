// A golden case of the oracle as the cluster's tests use it: a request, and what must come out of it.
#ifndef SALAMANDER_TESTS_TESTING_GOLDEN_H_
#define SALAMANDER_TESTS_TESTING_GOLDEN_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/model/safetensors.h"
#include "tests/testing/generate.h"

namespace salamander::testing {

inline const std::vector<std::string> kGoldenCases = {"dense", "sparse", "crossing", "wide", "odd"};

struct Golden {
  // Ends the process if the data cannot be read.
  explicit Golden(const std::string& name);

  // Greedy, as long as the continuation; with the log-probability of every token of the vocabulary if asked for.
  v1::GenerateRequest Request(bool all_logprobs) const;

  std::string folder;  // the checkpoint
  std::vector<int32_t> prompt;
  std::vector<int32_t> continuation;
  int vocab_size = 0;
  int last_layer = 0;
  std::unique_ptr<model::SafetensorsFile> file;
};

// `answer` has the continuation's tokens and, at each step, log-probabilities of the whole vocabulary that differ from
// the oracle's by at most `tolerance` of the range of that step's logits.
absl::Status CheckAnswer(const Golden& golden, const Answer& answer, double tolerance);

// Every key, value and state, and the hidden row, that the decode worker received: within `tolerance` of the range of
// the oracle's tensor.
absl::Status CheckCapture(const Golden& golden, const std::string& path, double tolerance);

// The files hold the same tensors, bit for bit.
absl::Status CheckSameTensors(const std::string& path, const std::string& other);

}  // namespace salamander::testing

#endif  // SALAMANDER_TESTS_TESTING_GOLDEN_H_
