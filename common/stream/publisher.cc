#include "common/stream/publisher.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <iterator>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/base/thread_pool.h"
#include "common/stream/codec.h"
#include "common/stream/wire.h"

namespace salamander::stream {
namespace {

// The first opens the connection, which costs round trips; the rate is that of the best of the others.
constexpr int kProbes = 4;

const std::vector<std::byte>& ProbePayload() {
  static const auto* const payload = new std::vector<std::byte>(kMaxProbeBytes, std::byte{0x5A});
  return *payload;
}

struct Link {
  enum class State { kWarming, kConnected, kFailed };
  State state = State::kWarming;
  std::unique_ptr<transport::Connection> connection;  // null before the transport gave one and once failed
  double bytes_per_second = 0;
  absl::Status failure;
  std::vector<std::function<void(absl::Status)>> waiting;  // Connect calls that want the outcome

  absl::Status status() const {
    if (connection == nullptr) return failure;
    return connection->status();
  }
};

// One Publish: lives until every destination's send has ended.
struct Job {
  PublishedItem item;
  std::function<void(absl::Status)> done;
  int64_t raw_bytes = 0;
  int64_t outstanding = 0;  // this job's part of Publisher::outstanding_bytes
  MemoryLedger::Hold raw_hold, hold;
  HostBuffer raw;  // of a device's item, until it is encoded
  HostBuffer memory;
  absl::Span<const std::byte> encoded;  // in `memory`, or `raw`, or the source itself
  uint64_t checksum = 0;

  std::mutex mutex;  // of what follows
  size_t unfinished = 0;
  absl::Status first_failure;
};

std::string JobName(const Job& job) {
  return absl::StrCat("request ", IdToString(job.item.request), ": ", ItemName(job.item.id));
}

v1::ItemHeader Header(const Job& job, const Destination& destination, v1::Codec codec, int64_t encoded_bytes) {
  v1::ItemHeader header;
  header.set_request_id(job.item.request);
  header.set_receiver_instance(destination.instance);
  header.set_epoch(destination.epoch);
  header.set_secret(destination.secret);
  header.set_kind(job.item.id.kind);
  header.set_layer(job.item.id.layer);
  header.set_span(job.item.id.span);
  header.set_codec(codec);
  header.set_encoded_bytes(encoded_bytes);
  header.set_raw_bytes(job.raw_bytes);
  return header;
}

}  // namespace

// A connection's destructor waits for the transport's progress thread, so what may drop the last reference to a Link
// runs on the encoders or a caller's thread, never on that one.
struct Publisher::Impl : std::enable_shared_from_this<Publisher::Impl> {
  using LinkPtr = std::shared_ptr<Link>;
  using JobPtr = std::shared_ptr<Job>;

  Impl(const PublisherOptions& the_options, transport::Transport* the_transport, MemoryLedger* the_ledger,
       StreamStats* the_stats)
      : options(the_options),
        transport(the_transport),
        ledger(the_ledger),
        stats(the_stats),
        encoders(std::make_unique<ThreadPool>("stream_encode", the_options.encode_threads)) {}

  void Connect(InstanceId peer, const std::string& address, std::function<void(absl::Status)> done);
  // Sends probe `number`, and the next when it has arrived.
  void Probe(InstanceId peer, const LinkPtr& link, int number);
  void Probed(InstanceId peer, const LinkPtr& link, int number, double seconds, const absl::Status& status);
  // The outcome of a Connect.
  void Settle(InstanceId peer, const LinkPtr& link, absl::Status status);
  void Disconnect(InstanceId peer);
  void Close();

  void Publish(PublishedItem item, std::function<void(absl::Status)> done);
  void EncodeAndSend(const JobPtr& job);
  // False if the destination is another process.
  bool DeliverHere(const Job& job, const Destination& destination);
  absl::Status EncodeJob(Job& job);
  void SendTo(const JobPtr& job, const Destination& destination);
  void Sent(const JobPtr& job, InstanceId peer, const absl::Status& status);
  void CountSent(const Job& job, v1::Codec codec, int64_t encoded_bytes);
  void End(Job& job, const absl::Status& status);
  absl::StatusOr<LinkPtr> FindConnected(InstanceId peer);
  // False once closed.
  bool Post(std::function<void()> closure);

  const PublisherOptions options;
  transport::Transport* const transport;
  MemoryLedger* const ledger;
  StreamStats* const stats;
  std::unordered_map<InstanceId, Receiver*> local;
  std::atomic<int64_t> outstanding{0};
  mutable std::mutex mutex;  // of what follows and of every Link
  bool closed = false;
  std::unordered_map<InstanceId, LinkPtr> links;
  std::unique_ptr<ThreadPool> encoders;
};

bool Publisher::Impl::Post(std::function<void()> closure) {
  std::lock_guard lock(mutex);
  if (!closed) encoders->Post(std::move(closure));
  return !closed;
}

void Publisher::Impl::Connect(InstanceId peer, const std::string& address, std::function<void(absl::Status)> done) {
  if (local.contains(peer)) return done(absl::OkStatus());
  const auto link = std::make_shared<Link>();
  LinkPtr broken;
  {
    std::unique_lock lock(mutex);
    LinkPtr& known = links[peer];
    if (known != nullptr && known->state == Link::State::kWarming) return known->waiting.push_back(std::move(done));
    if (known != nullptr && known->state == Link::State::kConnected && known->status().ok()) {
      lock.unlock();
      return done(absl::OkStatus());
    }
    broken = std::exchange(known, link);
    link->waiting.push_back(std::move(done));
  }
  absl::StatusOr<std::unique_ptr<transport::Connection>> connection = transport->Connect(address);
  if (!connection.ok()) return Settle(peer, link, connection.status());
  {
    std::lock_guard lock(mutex);
    link->connection = *std::move(connection);
  }
  Post([self = shared_from_this(), peer, link] { self->Probe(peer, link, 0); });
}

void Publisher::Impl::Probe(InstanceId peer, const LinkPtr& link, int number) {
  const auto start = std::chrono::steady_clock::now();
  link->connection->Send(
      std::string(kProbeHeader), ProbePayload(),
      [self = shared_from_this(), peer, weak = std::weak_ptr(link), number, start](const absl::Status& status) {
        const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        self->Post([self, peer, weak, number, seconds, status] {
          if (const LinkPtr alive = weak.lock()) self->Probed(peer, alive, number, seconds, status);
        });
      });
}

void Publisher::Impl::Probed(InstanceId peer, const LinkPtr& link, int number, double seconds,
                             const absl::Status& status) {
  if (!status.ok()) return Settle(peer, link, status);
  double rate = 0;
  {
    std::lock_guard lock(mutex);
    if (number > 0) link->bytes_per_second = std::max(link->bytes_per_second, kMaxProbeBytes / seconds);
    rate = link->bytes_per_second;
  }
  if (number + 1 < kProbes) return Probe(peer, link, number + 1);
  if (rate >= options.min_bytes_per_second) return Settle(peer, link, absl::OkStatus());
  Settle(peer, link,
         absl::FailedPreconditionError(
             absl::StrCat("moves ", rate, " bytes a second, must move ", options.min_bytes_per_second)));
}

void Publisher::Impl::Settle(InstanceId peer, const LinkPtr& link, absl::Status status) {
  status = Annotate(status, absl::StrCat("link to ", IdToString(peer)));
  std::vector<std::function<void(absl::Status)>> waiting;
  std::unique_ptr<transport::Connection> failed;
  double rate = 0;
  {
    std::lock_guard lock(mutex);
    waiting.swap(link->waiting);
    rate = link->bytes_per_second;
    link->state = status.ok() ? Link::State::kConnected : Link::State::kFailed;
    link->failure = status;
    if (!status.ok()) failed = std::move(link->connection);
  }
  failed.reset();
  if (status.ok()) {
    Log(LogLevel::kInfo,
        absl::StrCat("link to ", IdToString(peer), ": ", transport->name(), ", ", rate / 1e9, " GB/s"));
  } else {
    Log(LogLevel::kWarning, status.ToString());
  }
  for (const auto& done : waiting) done(status);
}

void Publisher::Impl::Disconnect(InstanceId peer) {
  Post([self = shared_from_this(), peer] {
    LinkPtr link;
    std::vector<std::function<void(absl::Status)>> waiting;
    {
      std::lock_guard lock(self->mutex);
      auto found = self->links.find(peer);
      if (found == self->links.end()) return;
      link = std::move(found->second);
      self->links.erase(found);
      waiting.swap(link->waiting);
    }
    link.reset();
    for (const auto& done : waiting) done(absl::CancelledError("disconnected"));
  });
}

void Publisher::Impl::Close() {
  std::unordered_map<InstanceId, LinkPtr> dropped;
  std::vector<std::function<void(absl::Status)>> waiting;
  {
    std::lock_guard lock(mutex);
    closed = true;
    dropped.swap(links);
    for (auto& [peer, link] : dropped) {
      std::move(link->waiting.begin(), link->waiting.end(), std::back_inserter(waiting));
      link->waiting.clear();
    }
  }
  dropped.clear();
  for (const auto& done : waiting) done(absl::CancelledError("the publisher is closing"));
  encoders.reset();  // Runs what is queued, which finds no links; nobody posts any more.
}

void Publisher::Impl::Publish(PublishedItem item, std::function<void(absl::Status)> done) {
  auto job = std::make_shared<Job>();
  job->item = std::move(item);
  job->done = std::move(done);
  job->raw_bytes = job->item.source.bytes();
  job->outstanding = job->raw_bytes;
  outstanding += job->outstanding;
  if (!Post([self = shared_from_this(), job] { self->EncodeAndSend(job); })) {
    End(*job, absl::CancelledError(absl::StrCat(JobName(*job), ": the publisher is closing")));
  }
}

void Publisher::Impl::EncodeAndSend(const JobPtr& job) {
  PublishedItem& item = job->item;
  if (item.source.ready) {
    if (absl::Status ready = item.source.ready(); !ready.ok()) return End(*job, Annotate(ready, JobName(*job)));
  }
  std::erase_if(item.destinations, [&](const Destination& destination) { return DeliverHere(*job, destination); });
  if (item.destinations.empty()) return End(*job, absl::OkStatus());
  if (absl::Status encoded = EncodeJob(*job); !encoded.ok()) return End(*job, Annotate(encoded, JobName(*job)));
  outstanding += static_cast<int64_t>(job->encoded.size()) - job->outstanding;
  job->outstanding = job->encoded.size();
  job->checksum = Checksum(job->encoded);
  job->unfinished = job->item.destinations.size();
  for (const Destination& destination : job->item.destinations) SendTo(job, destination);
}

bool Publisher::Impl::DeliverHere(const Job& job, const Destination& destination) {
  const auto receiver = local.find(destination.instance);
  if (receiver == local.end()) return false;
  receiver->second->Deliver(Header(job, destination, v1::CODEC_RAW, job.raw_bytes), job.item.source);
  CountSent(job, v1::CODEC_RAW, job.raw_bytes);
  return true;
}

absl::Status Publisher::Impl::EncodeJob(Job& job) {
  PublishedItem& item = job.item;
  std::vector<absl::Span<const std::byte>> runs = item.source.runs;
  if (item.source.memory != nullptr) {
    ASSIGN_OR_RETURN(job.raw_hold, ledger->Take(MemoryOwner::kInTransfer, job.raw_bytes));
    job.raw = NewHostBuffer(item.source.memory, job.raw_bytes);
    RETURN_IF_ERROR(CopyRuns(runs, item.source.memory, {absl::MakeSpan(job.raw.get(), job.raw_bytes)}, nullptr));
    runs = {absl::MakeConstSpan(job.raw.get(), job.raw_bytes)};
  }
  if (item.codec == v1::CODEC_RAW && runs.size() == 1) {
    job.encoded = runs[0];  // As it is: no copy.
    return absl::OkStatus();
  }
  const int64_t most = MaxEncodedBytes(item.codec, item.shape, job.raw_bytes);
  ASSIGN_OR_RETURN(job.hold, ledger->Take(MemoryOwner::kInTransfer, most));
  job.memory = NewHostBuffer(item.source.memory, most);
  ASSIGN_OR_RETURN(const int64_t bytes, Encode(item.codec, item.shape, runs, absl::MakeSpan(job.memory.get(), most)));
  job.encoded = absl::MakeConstSpan(job.memory.get(), bytes);
  job.raw.reset();
  job.raw_hold = MemoryLedger::Hold();
  return absl::OkStatus();
}

void Publisher::Impl::SendTo(const JobPtr& job, const Destination& destination) {
  const InstanceId peer = destination.instance;
  const absl::StatusOr<LinkPtr> link = FindConnected(peer);
  if (!link.ok()) return Sent(job, peer, link.status());
  v1::ItemHeader header = Header(*job, destination, job->item.codec, static_cast<int64_t>(job->encoded.size()));
  header.set_checksum(job->checksum);
  (*link)->connection->Send(
      header.SerializeAsString(), job->encoded,
      [self = shared_from_this(), job, peer](const absl::Status& status) { self->Sent(job, peer, status); });
}

absl::StatusOr<Publisher::Impl::LinkPtr> Publisher::Impl::FindConnected(InstanceId peer) {
  std::lock_guard lock(mutex);
  if (closed) return absl::CancelledError("the publisher is closing");
  auto found = links.find(peer);
  if (found == links.end()) return absl::UnavailableError("no link");
  if (found->second->state == Link::State::kWarming) return absl::UnavailableError("the link is not warm yet");
  if (found->second->state == Link::State::kFailed) return absl::UnavailableError(found->second->failure.message());
  return found->second;
}

void Publisher::Impl::CountSent(const Job& job, v1::Codec codec, int64_t encoded_bytes) {
  StreamStats::PerCodec& counts = stats->sent[codec];
  ++counts.items;
  counts.raw_bytes += job.raw_bytes;
  counts.encoded_bytes += encoded_bytes;
  if (job.item.encoded_bytes != nullptr) *job.item.encoded_bytes += encoded_bytes;
}

void Publisher::Impl::Sent(const JobPtr& job, InstanceId peer, const absl::Status& status) {
  if (status.ok()) {
    CountSent(*job, job->item.codec, static_cast<int64_t>(job->encoded.size()));
  } else {
    ++stats->send_failures;
  }
  absl::Status outcome;
  {
    std::lock_guard lock(job->mutex);
    if (!status.ok() && job->first_failure.ok()) {
      job->first_failure = Annotate(status, absl::StrCat(JobName(*job), ", to ", IdToString(peer)));
    }
    if (--job->unfinished > 0) return;
    outcome = job->first_failure;
  }
  End(*job, outcome);
}

void Publisher::Impl::End(Job& job, const absl::Status& status) {
  job.memory.reset();
  job.raw.reset();
  job.hold = MemoryLedger::Hold();
  job.raw_hold = MemoryLedger::Hold();
  outstanding -= job.outstanding;
  std::exchange(job.done, nullptr)(status);
}

Publisher::Publisher(const PublisherOptions& options, transport::Transport* transport, MemoryLedger* ledger,
                     StreamStats* stats)
    : impl_(std::make_shared<Impl>(options, transport, ledger, stats)) {}

Publisher::~Publisher() { impl_->Close(); }

void Publisher::ServeLocally(InstanceId peer, Receiver* receiver) { impl_->local[peer] = receiver; }

void Publisher::Connect(InstanceId peer, const std::string& transport_address, std::function<void(absl::Status)> done) {
  impl_->Connect(peer, transport_address, std::move(done));
}

void Publisher::Disconnect(InstanceId peer) { impl_->Disconnect(peer); }

std::vector<LinkInfo> Publisher::links() const {
  std::lock_guard lock(impl_->mutex);
  std::vector<LinkInfo> infos;
  for (const auto& [peer, receiver] : impl_->local) infos.push_back({.peer = peer, .connected = true});
  for (const auto& [peer, link] : impl_->links) {
    const absl::Status status = link->status();
    infos.push_back({peer, link->state == Link::State::kConnected && status.ok(), link->bytes_per_second, status});
  }
  return infos;
}

void Publisher::Publish(PublishedItem item, std::function<void(absl::Status)> done) {
  impl_->Publish(std::move(item), std::move(done));
}

int64_t Publisher::outstanding_bytes() const { return impl_->outstanding; }

}  // namespace salamander::stream
