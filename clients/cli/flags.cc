#include "clients/cli/flags.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace salamander::cli {

bool ParseValue(const std::string& text, std::string* value) {
  *value = text;
  return true;
}
bool ParseValue(const std::string& text, bool* value) { return absl::SimpleAtob(text, value); }
bool ParseValue(const std::string& text, int32_t* value) { return absl::SimpleAtoi(text, value); }
bool ParseValue(const std::string& text, int64_t* value) { return absl::SimpleAtoi(text, value); }
bool ParseValue(const std::string& text, uint64_t* value) { return absl::SimpleAtoi(text, value); }
bool ParseValue(const std::string& text, float* value) { return absl::SimpleAtof(text, value); }
bool ParseValue(const std::string& text, double* value) { return absl::SimpleAtod(text, value); }
bool ParseValue(const std::string& text, absl::Duration* value) {
  if (double seconds = 0; absl::SimpleAtod(text, &seconds)) {
    *value = absl::Seconds(seconds);
  } else if (!absl::ParseDuration(text, value)) {
    return false;
  }
  return *value > absl::ZeroDuration();
}

FlagSet::FlagSet(std::string command, std::string summary)
    : command_(std::move(command)), summary_(std::move(summary)) {}

const FlagSet::Flag* FlagSet::Find(const std::string& name) const {
  auto found = std::find_if(flags_.begin(), flags_.end(), [&](const Flag& flag) { return flag.name == name; });
  return found == flags_.end() ? nullptr : &*found;
}

absl::Status FlagSet::Set(const Args& args) const {
  for (size_t i = 0; i < args.size(); ++i) {
    if (!absl::StartsWith(args[i], "--") || args[i] == "--") {
      return absl::InvalidArgumentError(absl::StrCat("unexpected argument '", args[i], "'"));
    }
    const size_t equals = args[i].find('=');
    const std::string name = args[i].substr(2, equals == std::string::npos ? equals : equals - 2);
    const Flag* flag = Find(name);
    if (flag == nullptr) return absl::InvalidArgumentError(absl::StrCat("unknown flag --", name));
    std::string value;
    if (equals != std::string::npos) {
      value = args[i].substr(equals + 1);
    } else if (flag->is_bool) {
      value = "true";
    } else if (i + 1 < args.size()) {
      value = args[++i];
    } else {
      return absl::InvalidArgumentError(absl::StrCat("--", name, " needs a value"));
    }
    if (!flag->parse(value)) {
      const std::string type = flag->is_bool ? "true or false" : flag->type;
      return absl::InvalidArgumentError(absl::StrCat("--", name, " must be ", type, ", got '", value, "'"));
    }
  }
  return absl::OkStatus();
}

std::optional<int> FlagSet::Parse(const Args& args) const {
  if (std::find(args.begin(), args.end(), "--help") != args.end()) {
    std::fputs(Help().c_str(), stdout);
    return 0;
  }
  if (absl::Status set = Set(args); !set.ok()) return UsageError(std::string(set.message()));
  return std::nullopt;
}

int FlagSet::UsageError(const std::string& message) const {
  std::fprintf(stderr, "error: %s\nSee salamander %s --help.\n", message.c_str(), command_.c_str());
  return kExitUsage;
}

std::string FlagSet::Help() const {
  std::string help = absl::StrCat("Usage: salamander ", command_, " [flags]\n\n", summary_, "\n\nFlags:\n");
  size_t width = 0;
  std::vector<std::pair<std::string, const Flag*>> rows;
  for (const Flag& flag : flags_) {
    if (flag.hidden) continue;
    rows.emplace_back(absl::StrCat("--", flag.name, flag.is_bool ? "" : "=" + flag.type), &flag);
    width = std::max(width, rows.back().first.size());
  }
  for (const auto& [usage, flag] : rows) {
    absl::StrAppend(&help, "  ", usage, std::string(width - usage.size() + 2, ' '), flag->help, "\n");
  }
  return help;
}

}  // namespace salamander::cli
