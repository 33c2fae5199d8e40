// The links from this prefill worker to every worker it may send items to, kept as the routers' peers say.
//
// Links are connected and warmed when a peer joins, and again at each heartbeat if they broke. The worker is ready only
// while all of them are warm, so that no request meets a cold one.
#ifndef SALAMANDER_PREFILL_WORKER_LINKS_H_
#define SALAMANDER_PREFILL_WORKER_LINKS_H_

#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/base/ids.h"
#include "common/service/metrics.h"
#include "common/stream/publisher.h"
#include "salamander/v1/cluster.pb.h"

namespace salamander::prefill {

// Any thread.
class Links {
 public:
  // `on_change` is called when a link has become warm or failed, on any thread; it must not block. All outlive the
  // publisher's last callback and the last scrape.
  Links(stream::Publisher* publisher, service::Metrics* metrics, std::string transport_name,
        std::function<void()> on_change);

  // The peers are now these.
  void Update(const v1::Peers& peers);
  // Connects again what is broken.
  void Retry();
  // All peers are connected.
  bool warm() const;
  // Adds every peer's link.
  void Report(v1::Heartbeat& heartbeat) const;

 private:
  struct Peer {
    std::string name;
    std::string address;
    bool connecting = false;
  };
  void Connect(InstanceId instance, const std::string& address);
  void OnConnected(InstanceId instance, const absl::Status& status);
  // Of each peer, what `value` says of its link; 0 before there is one.
  std::vector<service::Sample> Samples(const std::function<double(const stream::LinkInfo&)>& value) const;
  std::map<InstanceId, stream::LinkInfo> Infos() const;

  stream::Publisher* const publisher_;
  const std::string transport_name_;
  const std::function<void()> on_change_;
  mutable std::mutex mutex_;
  std::map<InstanceId, Peer> peers_;
};

}  // namespace salamander::prefill

#endif  // SALAMANDER_PREFILL_WORKER_LINKS_H_
