#include "common/service/registration.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>

#include "common/base/clock.h"
#include "tests/common/service/fake_cluster.h"

namespace salamander::service {
namespace {

using testing::FakeCluster;

// A worker's side: counts what the registration asks and tells.
class Worker {
 public:
  RegistrationOptions Options(std::vector<std::string> routers) {
    RegistrationOptions options;
    options.routers = std::move(routers);
    options.hello.set_name("worker");
    options.hello.set_instance_id(42);
    options.retry_seconds = 0.05;
    options.heartbeat = [this] {
      std::lock_guard lock(mutex_);
      v1::Heartbeat beat;
      beat.set_ready(ready_);
      return beat;
    };
    options.on_peers = [this](const v1::Peers& peers) {
      std::lock_guard lock(mutex_);
      peers_.clear();
      for (const v1::Peer& peer : peers.peers()) peers_.insert(peer.instance_id());
      ++reports_;
      changed_.notify_all();
    };
    options.on_refused = [this](const absl::Status& status) {
      std::lock_guard lock(mutex_);
      refusal_ = status;
      ++refusals_;
      changed_.notify_all();
    };
    return options;
  }
  void SetReady() {
    std::lock_guard lock(mutex_);
    ready_ = true;
  }
  bool WaitForPeers(const std::set<uint64_t>& peers) {
    return Wait([&] { return peers_ == peers; });
  }
  bool WaitForRefusal() {
    return Wait([&] { return refusal_.has_value(); });
  }
  absl::Status refusal() {
    std::lock_guard lock(mutex_);
    return *refusal_;
  }
  int refusals() {
    std::lock_guard lock(mutex_);
    return refusals_;
  }
  int reports() {
    std::lock_guard lock(mutex_);
    return reports_;
  }

 private:
  bool Wait(const std::function<bool()>& condition) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(10), condition);
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  bool ready_ = false;
  std::set<uint64_t> peers_;
  std::optional<absl::Status> refusal_;
  int refusals_ = 0, reports_ = 0;
};

// Destroyed in reverse: the registration before the worker its callbacks use.
TEST(RegistrationTest, SaysHelloThenBeats) {
  FakeCluster router({});
  Worker worker;
  Registration registration(worker.Options({router.address()}));
  ASSERT_TRUE(router.WaitFor([](const auto& seen) { return seen.beats.size() >= 3; }));
  EXPECT_TRUE(router.WaitFor([](const auto& seen) {
    return seen.streams == 1 && seen.hellos.size() == 1 && seen.hellos[0].name() == "worker" &&
           seen.hellos[0].instance_id() == 42;
  }));
}

TEST(RegistrationTest, BeatTellsAtOnce) {
  FakeCluster router({.heartbeat_seconds = 600});
  Worker worker;
  Registration registration(worker.Options({router.address()}));
  ASSERT_TRUE(router.WaitFor([](const auto& seen) { return seen.beats.size() == 1 && !seen.beats[0].ready(); }));
  worker.SetReady();
  registration.Beat();
  EXPECT_TRUE(router.WaitFor([](const auto& seen) { return seen.beats.size() == 2 && seen.beats[1].ready(); }));
}

TEST(RegistrationTest, PromptBeatsDoNotPutOffTheRegularOnes) {
  FakeCluster router({.heartbeat_seconds = 0.5});
  Worker worker;
  Registration registration(worker.Options({router.address()}));
  for (size_t beats = 1; beats <= 20; ++beats) {
    ASSERT_TRUE(router.WaitFor([&](const auto& seen) { return seen.beats.size() >= beats; }));
    registration.Beat();
  }
  const double start = RealClock().Now();
  ASSERT_TRUE(router.WaitFor([](const auto& seen) { return seen.beats.size() >= 23; }));
  EXPECT_LT(RealClock().Now() - start, 2);
}

TEST(RegistrationTest, RoutersKnowAtOnceThatItEnded) {
  FakeCluster router({.heartbeat_seconds = 600});
  Worker worker;
  auto registration = std::make_unique<Registration>(worker.Options({router.address()}));
  ASSERT_TRUE(router.WaitFor([](const auto& seen) { return seen.hellos.size() == 1; }));
  registration.reset();
  EXPECT_TRUE(router.WaitFor([](const auto& seen) { return seen.ended == 1; }));
}

TEST(RegistrationTest, PeersOfAllRoutersAreUnited) {
  FakeCluster first({});
  auto second = std::make_unique<FakeCluster>(FakeCluster::Options{});
  Worker worker;
  Registration registration(worker.Options({first.address(), second->address()}));
  for (FakeCluster* router : {&first, second.get()}) {
    ASSERT_TRUE(router->WaitFor([](const auto& seen) { return seen.hellos.size() == 1; }));
  }
  first.SendPeers({1, 2});
  ASSERT_TRUE(worker.WaitForPeers({1, 2}));
  second->SendPeers({2, 3});
  ASSERT_TRUE(worker.WaitForPeers({1, 2, 3}));
  const int reports = worker.reports();
  first.SendPeers({2, 1});  // says nothing new
  second.reset();           // takes what only it knew with it
  EXPECT_TRUE(worker.WaitForPeers({1, 2}));
  EXPECT_EQ(worker.reports(), reports + 1);
}

TEST(RegistrationTest, ComesBackToARouterThatRestarted) {
  auto router = std::make_unique<FakeCluster>(FakeCluster::Options{});
  const std::string address = router->address();
  Worker worker;
  Registration registration(worker.Options({address}));
  ASSERT_TRUE(router->WaitFor([](const auto& seen) { return !seen.beats.empty(); }));
  router->SendPeers({7});
  ASSERT_TRUE(worker.WaitForPeers({7}));
  router.reset();
  ASSERT_TRUE(worker.WaitForPeers({}));
  FakeCluster restarted({.listen = address});
  EXPECT_TRUE(restarted.WaitFor([](const auto& seen) { return seen.hellos.size() == 1 && !seen.beats.empty(); }));
  EXPECT_EQ(worker.refusals(), 0);
}

TEST(RegistrationTest, ComesToARouterThatStartsLater) {
  std::string address;
  {
    FakeCluster gone({});
    address = gone.address();
  }
  Worker worker;
  Registration registration(worker.Options({address}));
  FakeCluster router({.listen = address});
  EXPECT_TRUE(router.WaitFor([](const auto& seen) { return !seen.beats.empty(); }));
}

TEST(RegistrationTest, RefusalIsFinalAndReportedOnce) {
  for (const absl::Status& refusal :
       {absl::FailedPreconditionError("model fingerprint aa, the cluster has bb"), absl::AlreadyExistsError("name")}) {
    FakeCluster router({.refuse = refusal}), other({.refuse = refusal});
    Worker worker;
    {
      Registration registration(worker.Options({router.address(), other.address()}));
      ASSERT_TRUE(worker.WaitForRefusal());
      EXPECT_EQ(worker.refusal(), refusal);
      for (FakeCluster* cluster : {&router, &other}) {
        EXPECT_TRUE(cluster->WaitFor([](const auto& seen) { return seen.ended == 1; }));
      }
    }
    EXPECT_EQ(worker.refusals(), 1);
    EXPECT_TRUE(router.WaitFor([](const auto& seen) { return seen.streams == 1; }));
  }
}

// What a name resolves to, as the test says.
class Names {
 public:
  void Set(std::vector<std::string> addresses) {
    std::lock_guard lock(mutex_);
    addresses_ = std::move(addresses);
  }
  void UseIn(RegistrationOptions& options) {
    options.resolve_seconds = 0.05;
    options.resolve = [this](const std::string& router) -> absl::StatusOr<std::vector<std::string>> {
      std::lock_guard lock(mutex_);
      ++lookups_;
      if (addresses_.empty()) return absl::UnavailableError("no such host: " + router);
      return addresses_;
    };
  }
  // Waits until a look-up that began after now has ended.
  void WaitForLookups() {
    const int from = lookups();
    while (lookups() < from + 2) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  int lookups() {
    std::lock_guard lock(mutex_);
    return lookups_;
  }

 private:
  std::mutex mutex_;
  std::vector<std::string> addresses_;
  int lookups_ = 0;
};

TEST(RegistrationTest, RegistersAtEveryAddressOfAName) {
  FakeCluster first({}), second({});
  Names names;
  names.Set({first.address(), second.address()});
  Worker worker;
  RegistrationOptions options = worker.Options({"routers:7000"});
  names.UseIn(options);
  Registration registration(std::move(options));
  for (FakeCluster* router : {&first, &second}) {
    EXPECT_TRUE(router->WaitFor([](const auto& seen) { return seen.hellos.size() == 1 && !seen.beats.empty(); }));
  }
}

TEST(RegistrationTest, FollowsANameToNewAddresses) {
  auto first = std::make_unique<FakeCluster>(FakeCluster::Options{});
  const std::string address = first->address();
  FakeCluster second({});
  Names names;  // none is known at first
  Worker worker;
  RegistrationOptions options = worker.Options({"routers:7000"});
  names.UseIn(options);
  Registration registration(std::move(options));
  names.WaitForLookups();
  names.Set({address});
  ASSERT_TRUE(first->WaitFor([](const auto& seen) { return seen.hellos.size() == 1; }));
  first->SendPeers({7});
  ASSERT_TRUE(worker.WaitForPeers({7}));

  // A router that its name has no more, as one that drains: its stream lives as long as it wants.
  names.Set({second.address()});
  ASSERT_TRUE(second.WaitFor([](const auto& seen) { return seen.hellos.size() == 1; }));
  ASSERT_TRUE(first->WaitFor([beats = size_t{0}](const auto& seen) mutable {
    if (beats == 0) beats = seen.beats.size() + 3;
    return seen.beats.size() >= beats;
  }));
  EXPECT_TRUE(first->WaitFor([](const auto& seen) { return seen.ended == 0 && seen.streams == 1; }));

  // Once it ended it is not dialed again.
  first.reset();
  ASSERT_TRUE(worker.WaitForPeers({}));
  FakeCluster another({.listen = address});
  const double end = RealClock().Now() + 1;  // many times the 50 ms of a retry
  while (RealClock().Now() < end) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_TRUE(another.WaitFor([](const auto& seen) { return seen.streams == 0; }));
}

TEST(RegistrationTest, KeepsWhatItHadWhileANameIsNotFound) {
  FakeCluster router({});
  Names names;
  names.Set({router.address()});
  Worker worker;
  RegistrationOptions options = worker.Options({"routers:7000"});
  names.UseIn(options);
  Registration registration(std::move(options));
  ASSERT_TRUE(router.WaitFor([](const auto& seen) { return seen.hellos.size() == 1; }));
  names.Set({});
  names.WaitForLookups();
  ASSERT_TRUE(router.WaitFor([beats = size_t{0}](const auto& seen) mutable {
    if (beats == 0) beats = seen.beats.size() + 3;
    return seen.beats.size() >= beats;
  }));
  EXPECT_TRUE(router.WaitFor([](const auto& seen) { return seen.ended == 0 && seen.streams == 1; }));
}

TEST(RegistrationTest, AddressesAreLookedUpOnce) {
  FakeCluster router({});
  std::atomic<int> lookups = 0;
  Worker worker;
  RegistrationOptions options = worker.Options({router.address()});
  options.resolve_seconds = 0.01;
  options.resolve = [&lookups](const std::string& address) {
    ++lookups;
    return ResolveAll(address);
  };
  Registration registration(std::move(options));
  ASSERT_TRUE(router.WaitFor([](const auto& seen) { return seen.beats.size() >= 5; }));
  EXPECT_EQ(lookups, 1);
}

// The name stays the authority, which is what a certificate is compared with.
TEST(RegistrationTest, ANameIsTheAuthorityOfItsAddresses) {
  FakeCluster router({});
  Names names;
  names.Set({router.address()});
  Worker worker;
  RegistrationOptions options = worker.Options({"routers.example:7000"});
  names.UseIn(options);
  Registration registration(std::move(options));
  EXPECT_TRUE(router.WaitFor([](const auto& seen) { return seen.authority == "routers.example:7000"; }));
}

TEST(RegistrationTest, OtherErrorsAreRetried) {
  FakeCluster router({.refuse = absl::ResourceExhaustedError("later")});
  Worker worker;
  Registration registration(worker.Options({router.address()}));
  EXPECT_TRUE(router.WaitFor([](const auto& seen) { return seen.streams >= 3; }));
  EXPECT_EQ(worker.refusals(), 0);
}

TEST(RegistrationTest, ARouterWithoutAnAnswerIsGivenUp) {
  FakeCluster router({.silent = true});
  Worker worker;
  Registration registration(worker.Options({router.address()}));
  EXPECT_TRUE(router.WaitFor([](const auto& seen) { return seen.streams >= 2; }));
  EXPECT_TRUE(router.WaitFor([](const auto& seen) { return seen.beats.empty(); }));
}

TEST(RegistrationTest, EndsWhileDialing) {
  // Connections to it are made, but nobody ever speaks.
  const int mute = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t size = sizeof(address);
  ASSERT_EQ(bind(mute, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(listen(mute, 1), 0);
  ASSERT_EQ(getsockname(mute, reinterpret_cast<sockaddr*>(&address), &size), 0);
  Worker worker;
  const double start = RealClock().Now();
  { Registration registration(worker.Options({"127.0.0.1:" + std::to_string(ntohs(address.sin_port))})); }
  EXPECT_LT(RealClock().Now() - start, 5);
  close(mute);
}

}  // namespace
}  // namespace salamander::service
