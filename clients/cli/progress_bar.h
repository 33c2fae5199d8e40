// The bar that shows how far a prefill is.
#ifndef SALAMANDER_CLIENTS_CLI_PROGRESS_BAR_H_
#define SALAMANDER_CLIENTS_CLI_PROGRESS_BAR_H_

#include <cstdint>
#include <string>

#include "clients/cpp/types.h"

namespace salamander::cli {

// "1,048,576".
std::string WithThousands(int64_t number);
// "0:07", "12:34", "1:02:03".
std::string Clock(double seconds);
// One line of at most `columns` characters: bar, tokens done, rate and time left; the bar shrinks first.
std::string RenderProgress(const client::Progress& progress, int columns);

// Draws on stderr, and only when that is a terminal. One thread.
class ProgressBar {
 public:
  ProgressBar();
  // Leaves no bar behind.
  ~ProgressBar();
  void Show(const client::Progress& progress);
  void Clear();

 private:
  bool terminal_;
  bool shown_ = false;
};

}  // namespace salamander::cli

#endif  // SALAMANDER_CLIENTS_CLI_PROGRESS_BAR_H_
