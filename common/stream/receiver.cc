#include "common/stream/receiver.h"

#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "common/base/limited_log.h"
#include "common/base/log.h"
#include "common/base/secret.h"
#include "common/base/status_macros.h"
#include "common/base/thread_pool.h"
#include "common/base/timer_thread.h"
#include "common/stream/codec.h"
#include "common/stream/gate.h"
#include "common/stream/staging.h"
#include "common/stream/subscription_core.h"
#include "common/stream/wire.h"
#include "salamander/v1/stream.pb.h"

namespace salamander::stream {
namespace {

// The ledger tells nobody when it has room again, so a receiver with nothing underway asks again this often.
constexpr double kLedgerRetrySeconds = 0.01;

int64_t RawBytes(const ExpectedItem& item) {
  int64_t bytes = 0;
  for (const absl::Span<std::byte>& run : item.into) bytes += run.size();
  return bytes;
}

// The sizes and the codec of a header against what is expected.
absl::Status CheckSizes(const v1::ItemHeader& header, const ExpectedItem& item, uint64_t payload_bytes) {
  const std::string name = ItemName(item.id);
  if (header.encoded_bytes() != payload_bytes) {
    return absl::DataLossError(
        absl::StrCat(name, ": header says ", header.encoded_bytes(), " encoded bytes, got ", payload_bytes));
  }
  const int64_t raw_bytes = RawBytes(item);
  if (header.raw_bytes() != static_cast<uint64_t>(raw_bytes)) {
    return absl::DataLossError(absl::StrCat(name, ": expected ", raw_bytes, " bytes, got ", header.raw_bytes()));
  }
  if (header.codec() != v1::CODEC_RAW && header.codec() != v1::CODEC_LOSSLESS) {
    return absl::DataLossError(absl::StrCat(name, ": unknown codec ", static_cast<int>(header.codec())));
  }
  const int64_t limit = MaxEncodedBytes(header.codec(), item.shape, raw_bytes);
  if (payload_bytes > static_cast<uint64_t>(limit)) {
    return absl::DataLossError(
        absl::StrCat(name, ": ", payload_bytes, " encoded bytes, at most ", limit, " for ", raw_bytes));
  }
  return absl::OkStatus();
}

}  // namespace

struct Receiver::Impl final : Subscription::Core::Host, std::enable_shared_from_this<Receiver::Impl> {
  // An accepted message on its way through: waits for staging memory, is received, verified, decoded.
  struct Arrival {
    std::shared_ptr<Subscription::Core> core;  // null for a probe
    size_t index = 0;
    v1::ItemHeader header;
    std::unique_ptr<transport::IncomingMessage> message;
    int64_t payload_bytes = 0;
    std::unique_ptr<Staging::Buffer> buffer;  // the payload, then perhaps room to decode it into

    absl::Span<std::byte> payload() { return buffer->bytes().first(payload_bytes); }
  };
  using ArrivalPtr = std::shared_ptr<Arrival>;

  Impl(const ReceiverOptions& the_options, StreamStats* the_stats) : options(the_options), stats(the_stats) {}

  void Start(MemoryLedger* ledger);
  void Stop();
  void Forget(Subscription::Core* core) override;
  void ExpireLater(std::shared_ptr<Subscription::Core> core, int32_t span) override;

  // The way of a message, in this order. OnMessage and Received run on the transport's thread, Verify on a decoder's.
  void OnMessage(std::string_view header, std::unique_ptr<transport::IncomingMessage> message);
  ArrivalPtr Accept(std::string_view header, const transport::IncomingMessage& message);
  // The subscription's item that the header names, from now on being received. Null: refused, counted and logged.
  ArrivalPtr Match(v1::ItemHeader header, uint64_t payload_bytes);
  void Stage(const ArrivalPtr& arrival);
  void Received(const ArrivalPtr& arrival, const absl::Status& status);
  void Verify(const ArrivalPtr& arrival);
  // What does not come as a message.
  void Deliver(const v1::ItemHeader& header, const ItemSource& source);
  // Marks the item by the outcome of `place`, which puts its bytes where they belong, unless nobody wants them now.
  void Settle(const ArrivalPtr& arrival, absl::FunctionRef<absl::Status()> place);

  std::shared_ptr<Subscription::Core> Find(const v1::ItemHeader& header);
  // Of the item, which failed its checks once its bytes were here.
  absl::Status Decoded(Arrival& arrival);

  const ReceiverOptions options;
  StreamStats* const stats;
  LimitedLog refusals;
  std::shared_ptr<Staging> staging;
  Gate handling;  // of messages: closed before `stats` may go
  std::mutex mutex;
  bool stopped = false;
  std::unordered_map<uint64_t, std::shared_ptr<Subscription::Core>> by_epoch;
  std::unique_ptr<ThreadPool> decoders;
  std::unique_ptr<TimerThread> timer;
};

void Receiver::Impl::Start(MemoryLedger* ledger) {
  decoders = std::make_unique<ThreadPool>("stream_decode", options.decode_threads);
  timer = std::make_unique<TimerThread>("stream_timer");
  staging = std::make_shared<Staging>(options.staging_bytes, ledger, [weak = weak_from_this()] {
    const std::shared_ptr<Impl> self = weak.lock();
    if (self == nullptr) return;
    std::lock_guard lock(self->mutex);
    if (self->stopped) return;
    self->timer->After(kLedgerRetrySeconds, [staging = std::weak_ptr(self->staging)] {
      if (const auto alive = staging.lock()) alive->Retry();
    });
  });
}

void Receiver::Impl::Stop() {
  handling.Close();
  {
    std::lock_guard lock(mutex);
    stopped = true;
  }
  // Posting to either looks at `stopped` first, so both can be taken down now.
  timer.reset();
  decoders.reset();
  staging->Close();
}

void Receiver::Impl::Forget(Subscription::Core* core) {
  {
    std::lock_guard lock(mutex);
    by_epoch.erase(core->epoch);
  }
  staging->Drop(core);
}

void Receiver::Impl::ExpireLater(std::shared_ptr<Subscription::Core> core, int32_t span) {
  std::lock_guard lock(mutex);
  if (stopped) return;
  timer->After(options.missing_item_seconds, [weak = std::weak_ptr(core), span] {
    if (const auto alive = weak.lock()) alive->Expire(span);
  });
}

void Receiver::Impl::OnMessage(std::string_view header, std::unique_ptr<transport::IncomingMessage> message) {
  Gate::Pass pass(handling);
  if (!pass) return message->Refuse();
  ArrivalPtr arrival = Accept(header, *message);
  if (arrival == nullptr) return message->Refuse();
  arrival->message = std::move(message);
  Stage(arrival);
}

Receiver::Impl::ArrivalPtr Receiver::Impl::Accept(std::string_view bytes, const transport::IncomingMessage& message) {
  if (bytes == kProbeHeader && message.payload_bytes() <= kMaxProbeBytes) return std::make_shared<Arrival>();
  v1::ItemHeader header;
  if (!header.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    ++stats->refused_malformed;
    refusals.Write(LogLevel::kWarning,
                   absl::StrCat("a message whose header of ", bytes.size(), " bytes is none of an ", "item: refused"));
    return nullptr;
  }
  return Match(std::move(header), message.payload_bytes());
}

Receiver::Impl::ArrivalPtr Receiver::Impl::Match(v1::ItemHeader item_header, uint64_t payload_bytes) {
  auto arrival = std::make_shared<Arrival>();
  arrival->header = std::move(item_header);
  const v1::ItemHeader& header = arrival->header;
  const ItemId id{header.kind(), header.layer(), header.span()};
  const auto refuse = [&](std::atomic<int64_t>& count, LogLevel level, std::string_view why) {
    ++count;
    refusals.Write(level, absl::StrCat("request ", IdToString(header.request_id()), ": ", ItemName(id),
                                       ": refused: ", std::string(why)));
    return nullptr;
  };
  arrival->core = Find(header);
  // Items that were on their way when their request ended are no reason to worry.
  if (arrival->core == nullptr) return refuse(stats->refused_unknown, LogLevel::kInfo, "no such reservation here");
  Subscription::Core& core = *arrival->core;
  if (!IsSecret(header.secret(), core.secret)) {
    return refuse(stats->refused_secret, LogLevel::kWarning, "not the secret of the reservation it names");
  }
  if (core.request != header.request_id()) {
    return refuse(stats->refused_unknown, LogLevel::kWarning, "the reservation is another request's");
  }
  if (core.failed()) return refuse(stats->refused_unknown, LogLevel::kInfo, "the request has failed");
  const std::optional<size_t> index = core.table.Find(id);
  if (!index) return refuse(stats->refused_malformed, LogLevel::kWarning, "not expected here");
  arrival->index = *index;
  if (absl::Status sizes = CheckSizes(header, core.table.item(*index), payload_bytes); !sizes.ok()) {
    ++stats->refused_malformed;
    core.Fail(std::move(sizes));
    return nullptr;
  }
  if (!core.table.Transition(*index, ItemState::kMissing, ItemState::kReceiving)) {
    return refuse(stats->refused_duplicate, LogLevel::kInfo, "it came before");
  }
  return arrival;
}

std::shared_ptr<Subscription::Core> Receiver::Impl::Find(const v1::ItemHeader& header) {
  if (header.receiver_instance() != options.instance) return nullptr;
  std::lock_guard lock(mutex);
  auto found = by_epoch.find(header.epoch());
  return found == by_epoch.end() ? nullptr : found->second;
}

void Receiver::Impl::Stage(const ArrivalPtr& arrival) {
  arrival->payload_bytes = static_cast<int64_t>(arrival->message->payload_bytes());
  // What is decoded for a device needs a place in the host's memory too.
  ItemMemory* const memory = arrival->core != nullptr ? arrival->core->table.item(arrival->index).memory : nullptr;
  const bool decoded_here = memory != nullptr && arrival->header.codec() != v1::CODEC_RAW;
  const int64_t bytes = arrival->payload_bytes + (decoded_here ? arrival->header.raw_bytes() : 0);
  staging->Ask(arrival->core.get(), memory, bytes,
               [self = shared_from_this(), arrival](std::unique_ptr<Staging::Buffer> buffer) {
                 const std::unique_ptr<transport::IncomingMessage> message = std::move(arrival->message);
                 const bool closed = arrival->core != nullptr && !Gate::Pass(arrival->core->gate);
                 if (buffer == nullptr || closed) return message->Refuse();
                 arrival->buffer = std::move(buffer);
                 message->Receive(arrival->payload(),
                                  [self, arrival](absl::Status status) { self->Received(arrival, status); });
               });
}

void Receiver::Impl::Received(const ArrivalPtr& arrival, const absl::Status& status) {
  if (!status.ok()) {
    arrival->buffer = nullptr;
    if (arrival->core == nullptr) return;
    // The publisher knows that its link broke; whoever plans the repair may send the item again.
    arrival->core->table.Transition(arrival->index, ItemState::kReceiving, ItemState::kMissing);
    return;
  }
  std::unique_lock lock(mutex);
  if (arrival->core == nullptr || stopped) {
    lock.unlock();
    arrival->buffer = nullptr;
    return;
  }
  decoders->Post([self = shared_from_this(), arrival] { self->Verify(arrival); });
}

void Receiver::Impl::Verify(const ArrivalPtr& arrival) {
  Settle(arrival, [&] { return Decoded(*arrival); });
}

void Receiver::Impl::Settle(const ArrivalPtr& arrival, absl::FunctionRef<absl::Status()> place) {
  Subscription::Core& core = *arrival->core;
  Gate::Pass pass(core.gate);
  // A subscription that failed keeps its memory as it is.
  const bool wanted = pass && !core.failed();
  const absl::Status placed = wanted ? place() : absl::OkStatus();
  arrival->buffer = nullptr;  // First: once an item shows as verified, nothing of it is in transfer.
  if (!wanted) return;
  if (!placed.ok()) return core.Fail(placed);
  StreamStats::PerCodec& codec = stats->received[arrival->header.codec()];
  ++codec.items;
  codec.raw_bytes += arrival->header.raw_bytes();
  codec.encoded_bytes += arrival->header.encoded_bytes();
  core.table.Transition(arrival->index, ItemState::kReceiving, ItemState::kVerified);
  if (core.on_change) core.on_change();
}

absl::Status Receiver::Impl::Decoded(Arrival& arrival) {
  const ExpectedItem& item = arrival.core->table.item(arrival.index);
  const uint64_t checksum = Checksum(arrival.payload());
  if (checksum != arrival.header.checksum()) {
    ++stats->checksum_failures;
    return absl::DataLossError(absl::StrCat(ItemName(item.id), ": checksum of the received bytes: expected ",
                                            IdToString(arrival.header.checksum()), ", got ", IdToString(checksum)));
  }
  const v1::Codec codec = arrival.header.codec();
  if (item.memory == nullptr) {
    const absl::Status decoded = Decode(codec, item.shape, arrival.payload(), item.into);
    if (decoded.ok()) return decoded;
    return absl::DataLossError(absl::StrCat(ItemName(item.id), ": ", decoded.message()));
  }
  absl::Span<std::byte> raw = arrival.payload();
  if (codec != v1::CODEC_RAW) {
    raw = arrival.buffer->bytes().subspan(arrival.payload_bytes);
    const absl::Status decoded = Decode(codec, item.shape, arrival.payload(), {raw});
    if (!decoded.ok()) return absl::DataLossError(absl::StrCat(ItemName(item.id), ": ", decoded.message()));
  }
  return Annotate(CopyRuns({raw}, nullptr, item.into, item.memory), ItemName(item.id));
}

void Receiver::Impl::Deliver(const v1::ItemHeader& header, const ItemSource& source) {
  Gate::Pass pass(handling);
  if (!pass) return;
  const ArrivalPtr arrival = Match(header, header.encoded_bytes());
  if (arrival == nullptr) return;
  const ExpectedItem& item = arrival->core->table.item(arrival->index);
  Settle(arrival,
         [&] { return Annotate(CopyRuns(source.runs, source.memory, item.into, item.memory), ItemName(item.id)); });
}

Receiver::Receiver(const ReceiverOptions& options, transport::Transport* transport, MemoryLedger* ledger,
                   StreamStats* stats)
    : impl_(std::make_shared<Impl>(options, stats)) {
  impl_->Start(ledger);
  transport->SetHandler(
      [weak = std::weak_ptr(impl_)](std::string_view header, std::unique_ptr<transport::IncomingMessage> message) {
        if (const std::shared_ptr<Impl> impl = weak.lock()) impl->OnMessage(header, std::move(message));
      });
}

Receiver::~Receiver() { impl_->Stop(); }

void Receiver::Deliver(const v1::ItemHeader& header, const ItemSource& source) { impl_->Deliver(header, source); }

std::unique_ptr<Subscription> Receiver::Subscribe(RequestId request, std::vector<ExpectedItem> expected,
                                                  std::function<void()> on_change) {
  auto core = std::make_shared<Subscription::Core>(request, RandomId(), std::move(expected), std::move(on_change),
                                                   impl_.get(), impl_->stats);
  std::lock_guard lock(impl_->mutex);
  impl_->by_epoch[core->epoch] = core;
  return std::unique_ptr<Subscription>(new Subscription(std::move(core)));
}

}  // namespace salamander::stream
