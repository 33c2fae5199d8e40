// Members of a registry without any network.
#ifndef SALAMANDER_TESTS_ROUTER_FAKE_MEMBERS_H_
#define SALAMANDER_TESTS_ROUTER_FAKE_MEMBERS_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "router/registry.h"
#include "tests/router/fake_clock.h"

namespace salamander::router {

// Notes what is sent to the worker.
class FakeLink final : public WorkerLink {
 public:
  void Send(v1::RouterMessage message) override {
    if (message.has_welcome()) welcome = message.welcome();
    if (message.has_peers()) peers.push_back(message.peers());
  }
  void Close(absl::Status status) override { closed = std::move(status); }

  // Names of the peers last sent.
  std::vector<std::string> PeerNames() const {
    std::vector<std::string> names;
    if (!peers.empty()) {
      for (const v1::Peer& peer : peers.back().peers()) names.push_back(peer.name());
    }
    return names;
  }

  std::optional<v1::Welcome> welcome;
  std::vector<v1::Peers> peers;
  std::optional<absl::Status> closed;
};

// 1 MiB for every 1024 tokens and for every request, 100 MiB in all.
inline v1::WorkerHello Hello(v1::WorkerRole role, const std::string& name, InstanceId instance) {
  v1::WorkerHello hello;
  hello.set_role(role);
  hello.set_name(name);
  hello.set_instance_id(instance);
  hello.set_grpc_address(absl::StrCat("host:", instance));
  hello.set_transport_address(absl::StrCat("address of ", name));
  hello.set_model_fingerprint("m");
  hello.set_kv_element_type(v1::ELEMENT_TYPE_BFLOAT16);
  hello.set_request_memory_bytes(100 << 20);
  hello.set_page_group_bytes(1 << 20);
  hello.set_bytes_per_request(1 << 20);
  hello.set_stream_version(1);
  hello.set_max_span_tokens(8192);
  return hello;
}

inline v1::Heartbeat ReadyBeat(int64_t free_bytes = 100 << 20) {
  v1::Heartbeat beat;
  beat.set_ready(true);
  beat.set_free_memory_bytes(free_bytes);
  return beat;
}

// A registry on a fake clock, with beats of one second.
struct Members {
  explicit Members(const std::string& fingerprint = "m")
      : registry({.model_fingerprint = fingerprint, .heartbeat_seconds = 1, .router_version = "v"}, &clock,
                 [](const std::string&) { return nullptr; }) {}

  // Joins and beats once.
  std::shared_ptr<FakeLink> Join(const v1::WorkerHello& hello, const v1::Heartbeat& beat = ReadyBeat()) {
    auto link = std::make_shared<FakeLink>();
    if (!registry.Add(hello, link).ok()) return nullptr;
    registry.Beat(hello.instance_id(), link.get(), beat);
    return link;
  }
  std::shared_ptr<FakeLink> JoinPrefill(const std::string& name, InstanceId instance) {
    return Join(Hello(v1::WORKER_ROLE_PREFILL, name, instance));
  }
  std::shared_ptr<FakeLink> JoinDecode(const std::string& name, InstanceId instance) {
    return Join(Hello(v1::WORKER_ROLE_DECODE, name, instance));
  }
  WorkerView Find(const std::string& name) const {
    for (const WorkerView& worker : registry.Workers()) {
      if (worker.hello->name() == name) return worker;
    }
    return {};
  }

  FakeClock clock;
  Registry registry;
};

}  // namespace salamander::router

#endif  // SALAMANDER_TESTS_ROUTER_FAKE_MEMBERS_H_
