// Flags of one subcommand. Absl's flags are global to a program, so every subcommand would show and accept those of all
// others; a FlagSet belongs to one.
//
//   int64_t workers = 2;
//   FlagSet flags("serve", "Starts a cluster on this machine.");
//   flags.Add("prefill_workers", &workers, "prefill workers to start");
//   if (std::optional<int> exit = flags.Parse(args)) return *exit;      // --help, or a bad flag
//
// Both --name=value and --name value; a bool is --name or --name=false. A flag given twice takes the last value, one
// with a vector target collects all.
#ifndef SALAMANDER_CLIENTS_CLI_FLAGS_H_
#define SALAMANDER_CLIENTS_CLI_FLAGS_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace salamander::cli {

using Args = std::vector<std::string>;

// Exit codes of the command, besides 0. Interrupted commands end with 128 + the signal's number.
inline constexpr int kExitFailure = 1;
inline constexpr int kExitUsage = 2;

// One value from its text; false if it is none of that type.
bool ParseValue(const std::string& text, std::string* value);
bool ParseValue(const std::string& text, bool* value);
bool ParseValue(const std::string& text, int32_t* value);
bool ParseValue(const std::string& text, int64_t* value);
bool ParseValue(const std::string& text, uint64_t* value);
bool ParseValue(const std::string& text, float* value);
bool ParseValue(const std::string& text, double* value);
// Seconds, or with a unit: "90", "1m30s", "500ms".
bool ParseValue(const std::string& text, absl::Duration* value);
template <typename T>
bool ParseValue(const std::string& text, std::optional<T>* value) {
  return ParseValue(text, &value->emplace());
}
template <typename T>
bool ParseValue(const std::string& text, std::vector<T>* values) {
  return ParseValue(text, &values->emplace_back());
}

// What --help calls values of a type.
template <typename T>
struct TypeName {
  static constexpr const char* value = std::is_same_v<T, std::string>      ? "TEXT"
                                       : std::is_same_v<T, absl::Duration> ? "SECONDS"
                                       : std::is_floating_point_v<T>       ? "NUMBER"
                                                                           : "INTEGER";
};
template <typename T>
struct TypeName<std::optional<T>> : TypeName<T> {};
template <typename T>
struct TypeName<std::vector<T>> : TypeName<T> {};

class FlagSet {
 public:
  // `summary` is the first paragraph of --help.
  FlagSet(std::string command, std::string summary);

  // `target` outlives the set; its value at Parse is the default. Help texts are lower-case phrases; those that tell a
  // default say it themselves.
  template <typename T>
  void Add(const char* name, T* target, const char* help) {
    flags_.push_back({name, help, TypeName<T>::value, std::is_same_v<T, bool>, /*hidden=*/false,
                      [target](const std::string& text) { return ParseValue(text, target); }});
  }
  // Accepted, but not shown by --help: for tests.
  template <typename T>
  void AddHidden(const char* name, T* target) {
    Add(name, target, "");
    flags_.back().hidden = true;
  }

  // Nothing: go on. Otherwise the command's exit code: 0 after --help (printed to stdout), kExitUsage after a bad flag
  // (told on stderr by name).
  [[nodiscard]] std::optional<int> Parse(const Args& args) const;
  // Tells what is wrong on stderr, points to --help, and returns kExitUsage.
  int UsageError(const std::string& message) const;

  // The parts of Parse. INVALID_ARGUMENT naming the flag.
  absl::Status Set(const Args& args) const;
  std::string Help() const;

 private:
  struct Flag {
    std::string name;
    std::string help;
    std::string type;
    bool is_bool;
    bool hidden;
    std::function<bool(const std::string&)> parse;
  };
  const Flag* Find(const std::string& name) const;

  std::string command_;
  std::string summary_;
  std::vector<Flag> flags_;
};

}  // namespace salamander::cli

#endif  // SALAMANDER_CLIENTS_CLI_FLAGS_H_
