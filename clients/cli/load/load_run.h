// Sends requests at given times, whatever becomes of those before them (an open loop), and records what the client saw.
#ifndef SALAMANDER_CLIENTS_CLI_LOAD_LOAD_RUN_H_
#define SALAMANDER_CLIENTS_CLI_LOAD_LOAD_RUN_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "clients/cli/load/arrivals.h"
#include "clients/cpp/client.h"

namespace salamander::cli {

// Times are seconds since the run's begin. Latencies count from `due`, so that a late client does not make a slow
// server look fast.
struct RequestRecord {
  Arrival arrival;
  double due = 0;
  double sent = 0;
  double first_token = 0;  // 0: none came
  double last_token = 0;
  double end = 0;
  int64_t tokens = 0;
  absl::StatusCode code = absl::StatusCode::kUnknown;  // until its end
  bool dropped = false;                                // not sent: too many were under way

  bool completed() const { return !dropped && code == absl::StatusCode::kOk; }
  double ttft() const { return first_token - due; }
  // Mean over its tokens after the first; 0 for a single one.
  double inter_token() const { return tokens > 1 ? (last_token - first_token) / static_cast<double>(tokens - 1) : 0; }
};

struct LoadResult {
  std::vector<RequestRecord> requests;
  std::vector<double> inter_token_gaps;               // of all requests, between messages, spread over their tokens
  std::map<absl::StatusCode, std::string> a_message;  // of each code, the first that came
  double seconds = 0;                                 // from the begin to the last end
};

struct LoadOptions {
  int64_t vocab_size = 0;
  uint64_t seed = 0;
  absl::Duration deadline = absl::InfiniteDuration();  // of each request
  // How long after the last arrival requests may run; then they are cancelled.
  absl::Duration drain = absl::Seconds(60);
  // More than this under way: arrivals are dropped, and counted.
  int64_t most_outstanding = 4096;
};

class LoadRun {
 public:
  // Requests go over the clients in turn. They outlive the run.
  LoadRun(const std::vector<client::Client>* clients, LoadOptions options);
  ~LoadRun();

  // Blocks. Once.
  LoadResult Run(const std::vector<Arrival>& arrivals);
  // Sends no more and cancels what runs; Run returns soon. Any thread.
  void Stop();

 private:
  struct Flight;

  double Now() const;
  // False if the run was stopped meanwhile.
  bool SleepUntil(double seconds);
  void Send(size_t index);
  void OnEvent(Flight& flight, const client::Event& event) const;
  void OnEnd(size_t index, const absl::Status& status);
  void CancelAll();

  const std::vector<client::Client>& clients_;
  const LoadOptions options_;
  double begin_ = 0;

  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  LoadResult result_;                                  // a flight's record is its callbacks' alone until it has landed
  std::map<size_t, std::unique_ptr<Flight>> flights_;  // by index of the arrival
};

// Ids that depend on the two only, each in [0, vocab_size).
std::vector<int32_t> RandomPrompt(int64_t tokens, int64_t vocab_size, uint64_t seed);

}  // namespace salamander::cli

#endif  // SALAMANDER_CLIENTS_CLI_LOAD_LOAD_RUN_H_
