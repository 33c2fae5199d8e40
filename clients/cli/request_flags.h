// The flags that `generate` and `run` share: a prompt and how to go on from it.
#ifndef SALAMANDER_CLIENTS_CLI_REQUEST_FLAGS_H_
#define SALAMANDER_CLIENTS_CLI_REQUEST_FLAGS_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "clients/cli/flags.h"
#include "clients/cpp/types.h"

namespace salamander::cli {

// Where a prompt comes from; also the flags of `tokenize`.
struct PromptFlags {
  void AddTo(FlagSet& flags);
  // Reads the file, if it is one. INVALID_ARGUMENT naming the flag: not exactly one source, a file that cannot be read
  // or is no JSON array of 32-bit integers. What the prompt says is checked by the router.
  absl::StatusOr<client::Prompt> Read() const;

  std::optional<std::string> prompt;
  std::optional<std::string> prompt_file;
  std::optional<std::string> prompt_tokens;
  bool chat = false;
};

// Options of sampling and stopping; also the flags of `chat`.
struct SamplingFlags {
  void AddTo(FlagSet& flags);
  // Fills everything but the prompt.
  void Apply(client::GenerateRequest& request) const;

  client::GenerateRequest options;  // its prompt and stop are unused
  std::vector<std::string> stop;
  std::vector<int32_t> stop_token;
  absl::Duration deadline = absl::InfiniteDuration();
};

struct RequestFlags {
  void AddTo(FlagSet& flags);
  absl::StatusOr<client::GenerateRequest> Read() const;

  PromptFlags prompt;
  SamplingFlags sampling;
  bool json = false;
};

// JSON text of an array of token ids.
absl::StatusOr<std::vector<int32_t>> ParseTokenIds(const std::string& json);

}  // namespace salamander::cli

#endif  // SALAMANDER_CLIENTS_CLI_REQUEST_FLAGS_H_
