#include "clients/cli/load/load_run.h"

#include <chrono>
#include <random>
#include <utility>

#include "common/base/clock.h"

namespace salamander::cli {

struct LoadRun::Flight {
  RequestRecord record;
  std::vector<double> gaps;
  std::shared_ptr<client::CallbackCall> call;  // set under the run's lock
};

LoadRun::LoadRun(const std::vector<client::Client>* clients, LoadOptions options)
    : clients_(*clients), options_(std::move(options)) {}

LoadRun::~LoadRun() = default;

double LoadRun::Now() const { return RealClock().Now() - begin_; }

LoadResult LoadRun::Run(const std::vector<Arrival>& arrivals) {
  begin_ = RealClock().Now();
  result_.requests.resize(arrivals.size());
  size_t sent = 0;
  for (; sent < arrivals.size() && SleepUntil(arrivals[sent].seconds); ++sent) {
    result_.requests[sent].arrival = arrivals[sent];
    result_.requests[sent].due = arrivals[sent].seconds;
    Send(sent);
  }
  std::unique_lock lock(mutex_);
  result_.requests.resize(sent);
  const auto landed = [this] { return flights_.empty(); };
  changed_.wait_for(lock, absl::ToChronoMicroseconds(options_.drain), [&] { return landed() || stopping_; });
  if (!landed()) {
    CancelAll();
    changed_.wait(lock, landed);
  }
  result_.seconds = Now();
  return std::move(result_);
}

bool LoadRun::SleepUntil(double seconds) {
  std::unique_lock lock(mutex_);
  const auto rest = std::chrono::duration<double>(seconds - Now());
  return !changed_.wait_for(lock, rest, [this] { return stopping_; });
}

void LoadRun::Send(size_t index) {
  RequestRecord& record = result_.requests[index];
  auto owned = std::make_unique<Flight>();
  Flight* flight = owned.get();
  flight->record = record;
  {
    std::lock_guard lock(mutex_);
    if (static_cast<int64_t>(flights_.size()) >= options_.most_outstanding) {
      record.dropped = true;
      record.sent = record.end = Now();
      return;
    }
    flights_.emplace(index, std::move(owned));
  }
  client::GenerateRequest request{
      .prompt = RandomPrompt(record.arrival.input_tokens, options_.vocab_size, options_.seed + index),
      .max_tokens = record.arrival.output_tokens,
      .ignore_eos = true};
  request.sampling.seed = options_.seed + index;
  flight->record.sent = Now();
  std::shared_ptr<client::CallbackCall> call = clients_[index % clients_.size()].GenerateAsync(
      request,
      {.on_event = [this, flight](const client::Event& event) { OnEvent(*flight, event); },
       .on_end = [this, index](const absl::Status& status, auto) { OnEnd(index, status); }},
      {.timeout = options_.deadline});
  // It may have landed already.
  std::lock_guard lock(mutex_);
  if (flights_.contains(index)) flight->call = std::move(call);
}

void LoadRun::OnEvent(Flight& flight, const client::Event& event) const {
  const auto* chunk = std::get_if<client::TokenChunk>(&event);
  if (chunk == nullptr || chunk->ids.empty()) return;
  RequestRecord& record = flight.record;
  const double now = Now();
  const auto count = static_cast<int64_t>(chunk->ids.size());
  if (record.tokens == 0) {
    record.first_token = now;
  } else {
    flight.gaps.insert(flight.gaps.end(), count, (now - record.last_token) / static_cast<double>(count));
  }
  record.last_token = now;
  record.tokens += count;
}

void LoadRun::OnEnd(size_t index, const absl::Status& status) {
  std::lock_guard lock(mutex_);
  const auto landed = flights_.extract(index);
  Flight& flight = *landed.mapped();
  flight.record.end = Now();
  flight.record.code = status.code();
  result_.requests[index] = flight.record;
  result_.inter_token_gaps.insert(result_.inter_token_gaps.end(), flight.gaps.begin(), flight.gaps.end());
  if (!status.ok()) result_.a_message.emplace(status.code(), std::string(status.message()));
  // Under the lock: Run's caller may destroy this object as soon as it has it.
  changed_.notify_all();
}

void LoadRun::Stop() {
  std::lock_guard lock(mutex_);
  stopping_ = true;
  changed_.notify_all();
}

// Lock held. All have been sent.
void LoadRun::CancelAll() {
  for (const auto& [index, flight] : flights_) flight->call->Cancel();
}

std::vector<int32_t> RandomPrompt(int64_t tokens, int64_t vocab_size, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<int32_t> ids(tokens);
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % static_cast<uint64_t>(vocab_size));
  return ids;
}

}  // namespace salamander::cli
