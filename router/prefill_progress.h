// How far a request's spans are: who may say so, how much is done, and when the client hears of it.
//
// One per plan, used from the request's executor.
#ifndef SALAMANDER_ROUTER_PREFILL_PROGRESS_H_
#define SALAMANDER_ROUTER_PREFILL_PROGRESS_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "salamander/v1/inference.pb.h"
#include "salamander/v1/stream.pb.h"

namespace salamander::router {

class PrefillProgress {
 public:
  // Seconds between two messages to the client.
  static constexpr double kInterval = 0.2;

  explicit PrefillProgress(const v1::Plan& plan);

  // INTERNAL, naming span and worker, for a span that is not in the plan or not this worker's.
  absl::Status CheckOwner(int32_t span, int worker) const;
  // `span` passed CheckOwner. Counts never go back.
  void Advance(int32_t span, int64_t tokens_done);
  // True if it was not done already.
  bool Finish(int32_t span);
  // Every span is computed; its items may still be on their way.
  bool all_computed() const { return done_tokens_ == prompt_tokens_; }
  // Every item has been sent, too.
  bool all_done() const { return spans_done_ == static_cast<int>(spans_.size()); }

  // What to tell the client now, if anything: not more often than every kInterval, but always the end, once.
  // `seconds` is how long the prefill has been running.
  std::optional<v1::Progress> Message(double now, double seconds);

 private:
  struct Span {
    int64_t tokens = 0;
    int64_t done_tokens = 0;
    int worker = 0;
    bool done = false;
  };
  std::vector<Span> spans_;
  int64_t prompt_tokens_;
  int64_t done_tokens_ = 0;
  int64_t told_tokens_ = 0;
  std::optional<double> told_at_;
  int spans_done_ = 0;
};

}  // namespace salamander::router

#endif  // SALAMANDER_ROUTER_PREFILL_PROGRESS_H_
