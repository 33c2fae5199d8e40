// A cluster's state streams without its engines: nodes that publish made-up items of a plan to each other.
#ifndef SALAMANDER_TESTS_COMMON_STREAM_STREAM_CLUSTER_H_
#define SALAMANDER_TESTS_COMMON_STREAM_STREAM_CLUSTER_H_

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <vector>

#include "common/base/ids.h"
#include "common/base/memory_ledger.h"
#include "common/stream/manifest.h"
#include "common/stream/publisher.h"
#include "common/stream/receiver.h"
#include "common/transport/transport.h"

namespace salamander::stream::testing {

// A condition that other threads make true and the test waits for; every wait is bounded.
class Signal {
 public:
  void Notify() {
    std::lock_guard lock(mutex_);
    ++count_;
    changed_.notify_all();
  }
  // `condition` is asked after every Notify.
  bool WaitFor(const std::function<bool()>& condition, double seconds = 10) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    std::unique_lock lock(mutex_);
    while (true) {
      const int64_t seen = count_;
      lock.unlock();
      if (condition()) return true;
      lock.lock();
      if (!changed_.wait_until(lock, deadline, [&] { return count_ != seen; })) return false;
    }
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int64_t count_ = 0;
};

// The outcomes of asynchronous calls.
class Outcomes {
 public:
  std::function<void(absl::Status)> Expect() {
    std::lock_guard lock(mutex_);
    ++expected_;
    return [this](const absl::Status& status) {
      std::lock_guard inner(mutex_);  // until the signal is given: whoever waited for the last one may destroy both
      statuses_.push_back(status);
      signal_.Notify();
    };
  }
  // All of them, once they are in.
  std::vector<absl::Status> Wait(double seconds = 10) {
    EXPECT_TRUE(signal_.WaitFor(
        [this] {
          std::lock_guard lock(mutex_);
          return statuses_.size() == expected_;
        },
        seconds));
    std::lock_guard lock(mutex_);
    return statuses_;
  }

 private:
  std::mutex mutex_;
  size_t expected_ = 0;
  std::vector<absl::Status> statuses_;
  Signal signal_;
};

struct Node {
  explicit Node(std::unique_ptr<transport::Transport> own_transport, ReceiverOptions options = {})
      : transport(std::move(own_transport)) {
    options.instance = instance;
    receiver = std::make_unique<Receiver>(options, transport.get(), &ledger, &stats);
    publisher = std::make_unique<Publisher>(PublisherOptions{}, transport.get(), &ledger, &stats);
  }

  const InstanceId instance = RandomId();
  MemoryLedger ledger{int64_t{1} << 30};
  StreamStats stats;
  std::unique_ptr<transport::Transport> transport;
  std::unique_ptr<Receiver> receiver;
  std::unique_ptr<Publisher> publisher;
};

// Links `from` to `to`, and waits for it.
inline absl::Status Connect(Node& from, Node& to) {
  Outcomes outcomes;
  from.publisher->Connect(to.instance, to.transport->address(), outcomes.Expect());
  return outcomes.Wait().at(0);
}

// Sizes of made-up items: two key/value heads of 16, two lightning heads of 16.
inline constexpr int64_t kTestTile = 64 * 16 * 2;
inline ItemShape ShapeOf(const ItemId& id) {
  if (id.kind == v1::ITEM_KIND_KEYS_VALUES) return {v1::ELEMENT_TYPE_BFLOAT16, kTestTile};
  return {v1::ELEMENT_TYPE_FLOAT32, 16 * 16 * 4};
}
inline int64_t BytesOf(const v1::Plan& plan, const ItemId& id) {
  const v1::SpanAssignment& span = plan.spans(id.span);
  if (id.kind == v1::ITEM_KIND_KEYS_VALUES) return (span.end() - span.begin() + 63) / 64 * 4 * kTestTile;
  return id.kind == v1::ITEM_KIND_STATE ? 2 * 16 * 16 * 4 : 40 * 4;
}

// The bytes of an item, the same for everybody: normal numbers, as keys and values are.
inline std::vector<std::byte> Content(const v1::Plan& plan, const ItemId& id) {
  std::seed_seq seed{static_cast<int>(id.kind), id.layer, id.span};
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<std::byte> bytes(BytesOf(plan, id));
  const size_t width = id.kind == v1::ITEM_KIND_KEYS_VALUES ? 2 : 4;
  for (size_t i = 0; i < bytes.size(); i += width) {
    const float value = normal(random);
    std::memcpy(&bytes[i], reinterpret_cast<const char*>(&value) + 4 - width, width);
  }
  return bytes;
}

inline v1::Plan RandomPlan(std::mt19937_64& random, int workers, v1::Codec codec) {
  v1::Plan plan;
  plan.set_codec(codec);
  for (int i = 0; i < workers; ++i) plan.add_prefill_workers();
  const int spans = std::uniform_int_distribution<>(1, 7)(random);
  int64_t begin = 0;
  for (int i = 0; i < spans; ++i) {
    int64_t tokens = 128 * std::uniform_int_distribution<>(1, 5)(random);
    if (i + 1 == spans) tokens -= std::uniform_int_distribution<>(0, 127)(random);
    v1::SpanAssignment* span = plan.add_spans();
    span->set_begin(begin);
    span->set_end(begin + tokens);
    span->set_worker(std::uniform_int_distribution<>(0, workers - 1)(random));
    begin += tokens;
  }
  plan.set_prompt_tokens(begin);
  return plan;
}

// One leg's memory for what it expects, and its subscription.
struct Leg {
  Leg(Node* node, RequestId request, const v1::Plan& plan, const LayerKinds& sparse, int worker) {
    std::vector<ExpectedItem> expected;
    for (const ItemId& id : ExpectedItems(plan, sparse, worker)) {
      std::vector<std::byte>& bytes = memory[id];
      bytes.resize(BytesOf(plan, id));
      ExpectedItem item{id, ShapeOf(id), {}};
      // Pieces of one to three tiles, as pages cut them.
      const size_t piece = ShapeOf(id).tile_bytes * (1 + id.layer % 3);
      for (size_t begin = 0; begin < bytes.size(); begin += piece) {
        item.into.push_back(absl::MakeSpan(bytes).subspan(begin, piece));
      }
      expected.push_back(std::move(item));
    }
    subscription = node->receiver->Subscribe(request, std::move(expected), [this] { changed.Notify(); });
  }
  bool WaitComplete(double seconds = 10) {
    return changed.WaitFor([this] { return subscription->complete() || !subscription->status().ok(); }, seconds) &&
           subscription->complete();
  }

  std::map<ItemId, std::vector<std::byte>> memory;
  Signal changed;
  std::unique_ptr<Subscription> subscription;
};

// Nodes 0 … workers−1 prefill, the last decodes; every prefill node is linked to all others.
struct Cluster {
  Cluster(int workers, const std::function<std::unique_ptr<transport::Transport>()>& create,
          const ReceiverOptions& options = {}) {
    for (int i = 0; i <= workers; ++i) nodes.push_back(std::make_unique<Node>(create(), options));
    for (int i = 0; i < workers; ++i) {
      for (int j = 0; j <= workers; ++j) {
        if (i == j) continue;
        EXPECT_TRUE(Connect(*nodes[i], *nodes[j]).ok());
      }
    }
  }
  ~Cluster() {
    for (auto& node : nodes) node->publisher.reset();
    for (auto& node : nodes) node->receiver.reset();
  }
  Node& node(int worker) { return *(worker == kDecodeWorker ? nodes.back() : nodes[worker]); }

  std::map<int, std::unique_ptr<Leg>> Subscribe(RequestId request, const v1::Plan& plan, const LayerKinds& sparse) {
    std::map<int, std::unique_ptr<Leg>> legs;
    for (int worker = kDecodeWorker; worker + 1 < static_cast<int>(nodes.size()); ++worker) {
      legs[worker] = std::make_unique<Leg>(&node(worker), request, plan, sparse, worker);
    }
    return legs;
  }

  // Publishes every item of the plan; `content` keeps the sources, until the outcomes are in.
  void PublishAll(RequestId request, const v1::Plan& plan, const LayerKinds& sparse,
                  const std::map<int, std::unique_ptr<Leg>>& legs, Outcomes& outcomes,
                  std::map<ItemId, std::vector<std::byte>>& content) {
    for (int32_t span = 0; span < plan.spans_size(); ++span) {
      std::vector<ItemId> made;
      for (size_t layer = 0; layer < sparse.size(); ++layer) {
        const v1::ItemKind kind = sparse[layer] ? v1::ITEM_KIND_KEYS_VALUES : v1::ITEM_KIND_STATE;
        made.push_back({kind, static_cast<int32_t>(layer), span});
      }
      made.push_back({v1::ITEM_KIND_HIDDEN, 0, span});
      for (const ItemId& id : made) {
        std::vector<std::byte>& bytes = content[id] = Content(plan, id);
        PublishedItem item{request, id, ShapeOf(id), plan.codec(), {}, {}};
        const size_t cut = std::min(bytes.size(), static_cast<size_t>(ShapeOf(id).tile_bytes));
        item.source.runs.push_back(absl::MakeConstSpan(bytes).subspan(0, cut));
        item.source.runs.push_back(absl::MakeConstSpan(bytes).subspan(cut));
        for (int worker : Destinations(plan, id)) {
          const Subscription& to = *legs.at(worker)->subscription;
          item.destinations.push_back({node(worker).instance, to.epoch(), to.secret()});
        }
        node(plan.spans(span).worker()).publisher->Publish(std::move(item), outcomes.Expect());
      }
    }
  }

  std::vector<std::unique_ptr<Node>> nodes;
};

}  // namespace salamander::stream::testing

#endif  // SALAMANDER_TESTS_COMMON_STREAM_STREAM_CLUSTER_H_
