#include "common/transport/fake_transport.h"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/timer_thread.h"

namespace salamander::transport {
namespace {

// With FakeFaults::reorder every message is held for a random part of this, so that neighbours overtake each other.
constexpr double kReorderSeconds = 0.002;

// One end: a transport's progress thread and what Kill and the destructor make of it.
struct Endpoint {
  explicit Endpoint(std::string own_address) : address(std::move(own_address)) {}
  const std::string address;
  MessageHandler handler;
  bool alive = true;                      // false: killed or destroyed
  std::unique_ptr<TimerThread> progress;  // null once destroyed
};

// A connection, as both ends see it.
struct Link {
  std::shared_ptr<Endpoint> from, to;
  bool closed = false;
  int unfinished = 0;  // sends whose `done` has not returned
  std::condition_variable drained;
};

// One Send. Every delivery of it holds a reference; the sender's `done` runs once all have ended.
struct Transfer {
  std::shared_ptr<Link> link;
  std::string header;
  absl::Span<const std::byte> payload;
  std::function<void(absl::Status)> done;  // empty once called
  int deliveries = 0;
};

}  // namespace

// Everything of a network, under one mutex: also the copying of payloads, so that closing a link cannot pull the
// sender's memory from under a copy. Callbacks run outside of it.
struct FakeNetwork::Core : std::enable_shared_from_this<Core> {
  class FakeTransport;
  class FakeConnection;
  class FakeMessage;

  explicit Core(FakeFaults f) : faults(std::move(f)), random(faults.seed) {}

  // All of these: the mutex is held.
  absl::Status LinkStatus(const Link& link) const;
  bool Chance(double p) { return p > 0 && std::uniform_real_distribution<>(0, 1)(random) < p; }
  void Send(const std::shared_ptr<Transfer>& transfer);
  void Deliver(const std::shared_ptr<Transfer>& transfer, int64_t flipped_bit, double delay);
  // The first call decides what the sender gets.
  void Finish(Transfer& transfer, absl::Status status);
  void EndDelivery(Transfer& transfer, absl::Status status) {
    if (--transfer.deliveries == 0 || !status.ok()) Finish(transfer, std::move(status));
  }
  void Break(const std::function<bool(const Link&)>& which, const absl::Status& status);

  const FakeFaults faults;
  mutable std::mutex mutex;
  std::mt19937_64 random;
  Counts counts;
  int next_address = 1;
  std::map<std::string, std::shared_ptr<Endpoint>> endpoints;
  std::vector<std::weak_ptr<Transfer>> transfers;  // unfinished ones, and some that are gone
};

class FakeNetwork::Core::FakeMessage final : public IncomingMessage {
 public:
  FakeMessage(std::shared_ptr<Core> core, std::shared_ptr<Transfer> transfer, int64_t flipped_bit)
      : core_(std::move(core)), transfer_(std::move(transfer)), flipped_bit_(flipped_bit) {}
  ~FakeMessage() override { Refuse(); }

  size_t payload_bytes() const override { return transfer_->payload.size(); }

  void Receive(absl::Span<std::byte> memory, std::function<void(absl::Status)> done) override {
    std::lock_guard lock(core_->mutex);
    answered_ = true;
    Endpoint& to = *transfer_->link->to;
    // A destroyed transport runs no callbacks; its owner has let go of `memory` only after that.
    if (to.progress == nullptr) return;
    to.progress->Soon([core = core_, transfer = transfer_, flipped = flipped_bit_, memory, done = std::move(done)] {
      done(Copy(*core, *transfer, flipped, memory));
    });
  }

  void Refuse() override {
    std::lock_guard lock(core_->mutex);
    if (std::exchange(answered_, true)) return;
    core_->EndDelivery(*transfer_, absl::OkStatus());
  }

 private:
  static absl::Status Copy(Core& core, Transfer& transfer, int64_t flipped, absl::Span<std::byte> memory) {
    std::lock_guard lock(core.mutex);
    if (!transfer.done) return absl::UnavailableError("the sender closed the link");
    if (absl::Status status = core.LinkStatus(*transfer.link); !status.ok()) return status;
    if (!memory.empty()) std::memcpy(memory.data(), transfer.payload.data(), memory.size());
    if (flipped >= 0) memory[flipped / 8] ^= std::byte{1} << (flipped % 8);
    core.EndDelivery(transfer, absl::OkStatus());
    return absl::OkStatus();
  }

  const std::shared_ptr<Core> core_;
  const std::shared_ptr<Transfer> transfer_;
  const int64_t flipped_bit_;
  bool answered_ = false;
};

absl::Status FakeNetwork::Core::LinkStatus(const Link& link) const {
  if (!link.from->alive) return absl::UnavailableError(absl::StrCat("this end, ", link.from->address, ", is gone"));
  if (!link.to->alive) return absl::UnavailableError(absl::StrCat("peer ", link.to->address, " is gone"));
  return absl::OkStatus();
}

void FakeNetwork::Core::Send(const std::shared_ptr<Transfer>& transfer) {
  if (absl::Status status = LinkStatus(*transfer->link); !status.ok()) return Finish(*transfer, std::move(status));
  const bool faulty = !faults.only || faults.only(transfer->header);
  if (faulty && Chance(faults.drop)) {
    ++counts.dropped;
    return Finish(*transfer, absl::OkStatus());
  }
  const bool duplicate = faulty && Chance(faults.duplicate);
  if (duplicate) ++counts.duplicated;
  transfer->deliveries = duplicate ? 2 : 1;
  std::erase_if(transfers, [](const auto& weak) { return weak.expired(); });
  transfers.push_back(transfer);
  for (int i = transfer->deliveries; i > 0; --i) {
    int64_t flipped_bit = -1;
    if (faulty && !transfer->payload.empty() && Chance(faults.corrupt)) {
      ++counts.corrupted;
      flipped_bit = std::uniform_int_distribution<int64_t>(0, transfer->payload.size() * 8 - 1)(random);
    }
    double delay = 0;
    if (faulty && faults.reorder) delay += std::uniform_real_distribution<>(0, kReorderSeconds)(random);
    if (faulty && Chance(faults.delay)) {
      ++counts.delayed;
      delay += std::uniform_real_distribution<>(0, faults.max_delay_seconds)(random);
    }
    Deliver(transfer, flipped_bit, delay);
  }
}

void FakeNetwork::Core::Deliver(const std::shared_ptr<Transfer>& transfer, int64_t flipped_bit, double delay) {
  auto deliver = [core = shared_from_this(), transfer, flipped_bit] {
    MessageHandler* handler = nullptr;
    {
      std::lock_guard lock(core->mutex);
      Endpoint& to = *transfer->link->to;
      if (!transfer->done || !to.alive) return;  // Whoever broke the link has told the sender.
      if (!to.handler) return core->EndDelivery(*transfer, absl::OkStatus());
      ++core->counts.delivered;
      handler = &to.handler;
    }
    (*handler)(transfer->header, std::make_unique<FakeMessage>(core, transfer, flipped_bit));
  };
  TimerThread& progress = *transfer->link->to->progress;
  if (delay > 0) {
    progress.After(delay, std::move(deliver));
  } else {
    progress.Soon(std::move(deliver));
  }
}

void FakeNetwork::Core::Finish(Transfer& transfer, absl::Status status) {
  if (!transfer.done) return;
  auto call = [core = shared_from_this(), link = transfer.link, done = std::exchange(transfer.done, nullptr),
               status = std::move(status)] {
    done(status);
    std::lock_guard lock(core->mutex);
    if (--link->unfinished == 0) link->drained.notify_all();
  };
  transfer.link->from->progress->Soon(std::move(call));
}

void FakeNetwork::Core::Break(const std::function<bool(const Link&)>& which, const absl::Status& status) {
  for (const std::weak_ptr<Transfer>& weak : transfers) {
    const std::shared_ptr<Transfer> transfer = weak.lock();
    if (transfer != nullptr && which(*transfer->link)) Finish(*transfer, status);
  }
}

class FakeNetwork::Core::FakeConnection final : public Connection {
 public:
  FakeConnection(std::shared_ptr<Core> core, std::shared_ptr<Link> link)
      : core_(std::move(core)), link_(std::move(link)) {}

  ~FakeConnection() override {
    std::unique_lock lock(core_->mutex);
    core_->Break([this](const Link& link) { return &link == link_.get(); },
                 absl::CancelledError("the link was closed"));
    link_->drained.wait(lock, [this] { return link_->unfinished == 0; });
  }

  void Send(std::string header, absl::Span<const std::byte> payload, std::function<void(absl::Status)> done) override {
    auto transfer = std::make_shared<Transfer>(Transfer{link_, std::move(header), payload, std::move(done)});
    std::lock_guard lock(core_->mutex);
    ++link_->unfinished;
    if (transfer->header.size() > kMaxHeaderBytes) {
      return core_->Finish(*transfer, absl::InvalidArgumentError(absl::StrCat("header of ", transfer->header.size(),
                                                                              " bytes, at most ", kMaxHeaderBytes)));
    }
    core_->Send(transfer);
  }

  absl::Status status() const override {
    std::lock_guard lock(core_->mutex);
    return core_->LinkStatus(*link_);
  }

 private:
  const std::shared_ptr<Core> core_;
  const std::shared_ptr<Link> link_;
};

class FakeNetwork::Core::FakeTransport final : public Transport {
 public:
  FakeTransport(std::shared_ptr<Core> core, std::shared_ptr<Endpoint> endpoint)
      : core_(std::move(core)), endpoint_(std::move(endpoint)) {}

  // Connections of this end are closed by now. Peers see it die.
  ~FakeTransport() override {
    std::unique_ptr<TimerThread> progress;
    {
      std::lock_guard lock(core_->mutex);
      core_->endpoints.erase(endpoint_->address);
      endpoint_->alive = false;
      core_->Break([this](const Link& link) { return link.to == endpoint_; },
                   absl::UnavailableError(absl::StrCat("peer ", endpoint_->address, " is gone")));
      progress = std::move(endpoint_->progress);
    }
    progress.reset();  // Outside the mutex: its closures take it.
    std::lock_guard lock(core_->mutex);
    endpoint_->handler = nullptr;
  }

  std::string address() const override { return endpoint_->address; }
  std::string name() const override { return "fake"; }

  void SetHandler(MessageHandler handler) override {
    std::lock_guard lock(core_->mutex);
    endpoint_->handler = std::move(handler);
  }

  absl::StatusOr<std::unique_ptr<Connection>> Connect(const std::string& address) override {
    if (address.rfind("fake:", 0) != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("not an address of a fake transport (", address.size(), " bytes)"));
    }
    std::lock_guard lock(core_->mutex);
    auto found = core_->endpoints.find(address);
    if (found == core_->endpoints.end() || !found->second->alive) {
      return absl::UnavailableError(absl::StrCat("nobody at ", address));
    }
    auto link = std::make_shared<Link>();
    link->from = endpoint_;
    link->to = found->second;
    return std::make_unique<FakeConnection>(core_, std::move(link));
  }

 private:
  const std::shared_ptr<Core> core_;
  const std::shared_ptr<Endpoint> endpoint_;
};

FakeNetwork::FakeNetwork(FakeFaults faults) : core_(std::make_shared<Core>(std::move(faults))) {}

FakeNetwork::~FakeNetwork() = default;

std::unique_ptr<Transport> FakeNetwork::CreateTransport() {
  std::lock_guard lock(core_->mutex);
  auto endpoint = std::make_shared<Endpoint>(absl::StrCat("fake:", core_->next_address++));
  endpoint->progress = std::make_unique<TimerThread>("fake_net");
  core_->endpoints[endpoint->address] = endpoint;
  return std::make_unique<Core::FakeTransport>(core_, std::move(endpoint));
}

void FakeNetwork::Kill(const std::string& address) {
  std::lock_guard lock(core_->mutex);
  auto found = core_->endpoints.find(address);
  if (found == core_->endpoints.end()) return;
  const std::shared_ptr<Endpoint> dead = found->second;
  dead->alive = false;
  core_->Break([&](const Link& link) { return link.to == dead || link.from == dead; },
               absl::UnavailableError(absl::StrCat("peer ", address, " is gone")));
}

FakeNetwork::Counts FakeNetwork::counts() const {
  std::lock_guard lock(core_->mutex);
  return core_->counts;
}

}  // namespace salamander::transport
