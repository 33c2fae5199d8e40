#include "clients/cli/progress_bar.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace salamander::cli {
namespace {

constexpr int kLongestBar = 40;
constexpr int kDefaultColumns = 80;
// Carriage return and "erase to the end of the line" (ECMA-48 EL).
constexpr char kStartOfLine[] = "\r\x1b[K";

int TerminalColumns() {
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : kDefaultColumns;
}

}  // namespace

std::string WithThousands(int64_t number) {
  const std::string digits = std::to_string(number);
  std::string grouped;
  for (size_t i = 0; i < digits.size(); ++i) {
    const size_t left = digits.size() - i;
    if (i > 0 && left % 3 == 0 && digits[i - 1] != '-') grouped += ',';
    grouped += digits[i];
  }
  return grouped;
}

std::string Clock(double seconds) {
  const int64_t whole = static_cast<int64_t>(std::max(seconds, 0.0) + 0.5);
  if (whole >= 3600) return absl::StrFormat("%d:%02d:%02d", whole / 3600, whole / 60 % 60, whole % 60);
  return absl::StrFormat("%d:%02d", whole / 60, whole % 60);
}

std::string RenderProgress(const client::Progress& progress, int columns) {
  const double total = static_cast<double>(std::max<int64_t>(progress.prompt_tokens, 1));
  const double part = std::clamp(static_cast<double>(progress.prefilled_tokens) / total, 0.0, 1.0);
  std::string numbers = absl::StrFormat("%3.0f%%  %s / %s tokens", part * 100, WithThousands(progress.prefilled_tokens),
                                        WithThousands(progress.prompt_tokens));
  if (progress.tokens_per_second > 0) {
    absl::StrAppend(&numbers, "  ", WithThousands(static_cast<int64_t>(progress.tokens_per_second)), " tokens/s  ",
                    Clock(progress.seconds_left), " left");
  }
  const int room = columns - static_cast<int>(numbers.size()) - static_cast<int>(sizeof("prefill [] ") - 1);
  if (room < 5) return numbers.substr(0, std::max(columns, 0));
  const int length = std::min(room, kLongestBar);
  const int filled = static_cast<int>(part * length);
  return absl::StrCat("prefill [", std::string(filled, '#'), std::string(length - filled, '.'), "] ", numbers);
}

ProgressBar::ProgressBar() : terminal_(isatty(STDERR_FILENO) == 1) {}

ProgressBar::~ProgressBar() { Clear(); }

void ProgressBar::Show(const client::Progress& progress) {
  if (!terminal_) return;
  // One column less: a full line would wrap on some terminals.
  std::fprintf(stderr, "%s%s", kStartOfLine, RenderProgress(progress, TerminalColumns() - 1).c_str());
  std::fflush(stderr);
  shown_ = true;
}

void ProgressBar::Clear() {
  if (!shown_) return;
  std::fputs(kStartOfLine, stderr);
  std::fflush(stderr);
  shown_ = false;
}

}  // namespace salamander::cli
