// Checkpoints with random weights, the same bytes as the oracle's make_weights (tests/oracle/sala_reference.py).
#ifndef SALAMANDER_TESTS_TESTING_MAKE_CHECKPOINT_H_
#define SALAMANDER_TESTS_TESTING_MAKE_CHECKPOINT_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace salamander::testing {

// Writes config.json, as given, and model.safetensors into `folder`, which is made if need be. Each file appears whole.
absl::Status MakeCheckpoint(const std::string& config_json, uint64_t seed, const std::string& folder);

// The checkpoint of a golden case of tests/data/golden ("dense", "sparse", "crossing", "wide", "odd"), made at the
// first call in the build folder; any number of processes may call at once. Ends the process if it cannot be made.
std::string GoldenCheckpoint(const std::string& name);

// 32 hexadecimal digits: XXH3, 128 bits, of a file's content; empty if it cannot be read.
std::string FileHash(const std::string& path);

}  // namespace salamander::testing

#endif  // SALAMANDER_TESTS_TESTING_MAKE_CHECKPOINT_H_
