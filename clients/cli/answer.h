// Shows the events of one generation to the user: streamed text and a summary, or one JSON object.
#ifndef SALAMANDER_CLIENTS_CLI_ANSWER_H_
#define SALAMANDER_CLIENTS_CLI_ANSWER_H_

#include <string>

#include "clients/cli/progress_bar.h"
#include "clients/cpp/types.h"

namespace salamander::cli {

// The object that --json prints; its keys are documented in docs/api.md.
std::string CompletionToJson(const client::Completion& completion);
// Lines for a person: where the time to the first token went, and rates.
std::string Summary(const client::Finished& finished);

// One thread.
class AnswerPrinter {
 public:
  explicit AnswerPrinter(bool json) : json_(json) {}
  // Progress goes to stderr as a bar; text to stdout at once; at Finished the JSON object to stdout or the summary to
  // stderr.
  void Show(const client::Event& event);
  // The generation ended without Finished: takes the bar away and ends a started line.
  void Abandon();
  const client::Completion& completion() const { return completion_; }

 private:
  void ShowChunk(const client::TokenChunk& chunk);
  void ShowEnd(const client::Finished& finished);
  void EndLine();

  bool json_;
  ProgressBar bar_;
  client::Completion completion_;
};

}  // namespace salamander::cli

#endif  // SALAMANDER_CLIENTS_CLI_ANSWER_H_
