#include "prefill_worker/links.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/log.h"

namespace salamander::prefill {

Links::Links(stream::Publisher* publisher, service::Metrics* metrics, std::string transport_name,
             std::function<void()> on_change)
    : publisher_(publisher), transport_name_(std::move(transport_name)), on_change_(std::move(on_change)) {
  metrics->GaugesFrom(
      "salamander_prefill_link_connected", "1 while the link to a peer is connected, otherwise 0.",
      [this] { return Samples([](const stream::LinkInfo& link) { return link.connected ? 1.0 : 0.0; }); });
  metrics->GaugesFrom("salamander_prefill_link_bytes_per_second",
                      "Rate of the link to a peer, measured when it was warmed; 0 within one process or before that.",
                      [this] { return Samples([](const stream::LinkInfo& link) { return link.bytes_per_second; }); });
}

// The publisher is called without the lock: it may call back at once.
void Links::Update(const v1::Peers& peers) {
  std::vector<InstanceId> gone;
  {
    std::lock_guard lock(mutex_);
    std::map<InstanceId, Peer> now;
    for (const v1::Peer& peer : peers.peers()) {
      const auto known = peers_.find(peer.instance_id());
      now[peer.instance_id()] = {.name = peer.name(),
                                 .address = peer.transport_address(),
                                 .connecting = known != peers_.end() && known->second.connecting};
    }
    for (const auto& [instance, peer] : peers_) {
      if (!now.contains(instance)) gone.push_back(instance);
    }
    peers_ = std::move(now);
  }
  for (InstanceId instance : gone) publisher_->Disconnect(instance);
  Retry();
  on_change_();
}

void Links::Retry() {
  const std::map<InstanceId, stream::LinkInfo> infos = Infos();
  std::vector<std::pair<InstanceId, std::string>> broken;
  {
    std::lock_guard lock(mutex_);
    for (auto& [instance, peer] : peers_) {
      const auto info = infos.find(instance);
      if (peer.connecting || (info != infos.end() && info->second.connected)) continue;
      peer.connecting = true;
      broken.emplace_back(instance, peer.address);
    }
  }
  for (const auto& [instance, address] : broken) Connect(instance, address);
}

void Links::Connect(InstanceId instance, const std::string& address) {
  publisher_->Connect(instance, address,
                      [this, instance](const absl::Status& status) { OnConnected(instance, status); });
}

void Links::OnConnected(InstanceId instance, const absl::Status& status) {
  {
    std::lock_guard lock(mutex_);
    const auto peer = peers_.find(instance);
    if (peer == peers_.end()) return;
    peer->second.connecting = false;
    if (!status.ok()) {
      Log(LogLevel::kWarning,
          absl::StrCat("link to ", peer->second.name, " (", IdToString(instance), ") failed: ", status.ToString()));
    }
  }
  on_change_();
}

bool Links::warm() const {
  const std::map<InstanceId, stream::LinkInfo> infos = Infos();
  std::lock_guard lock(mutex_);
  return std::all_of(peers_.begin(), peers_.end(), [&](const auto& entry) {
    const auto info = infos.find(entry.first);
    return info != infos.end() && info->second.connected;
  });
}

void Links::Report(v1::Heartbeat& heartbeat) const {
  const std::map<InstanceId, stream::LinkInfo> infos = Infos();
  std::lock_guard lock(mutex_);
  for (const auto& [instance, peer] : peers_) {
    v1::LinkStatus& link = *heartbeat.add_links();
    link.set_peer_instance(instance);
    link.set_peer_name(peer.name);
    link.set_transport(transport_name_);
    const auto info = infos.find(instance);
    if (info == infos.end()) {
      link.set_error("not connected yet");
      continue;
    }
    link.set_connected(info->second.connected);
    link.set_bytes_per_second(info->second.bytes_per_second);
    if (!info->second.status.ok()) link.set_error(info->second.status.ToString());
  }
}

std::vector<service::Sample> Links::Samples(const std::function<double(const stream::LinkInfo&)>& value) const {
  const std::map<InstanceId, stream::LinkInfo> infos = Infos();
  std::lock_guard lock(mutex_);
  // By name: for a moment a peer that has started anew may be there twice.
  std::map<std::string, double> values;
  for (const auto& [instance, peer] : peers_) {
    const auto info = infos.find(instance);
    double& kept = values.try_emplace(peer.name, 0).first->second;
    if (info != infos.end()) kept = std::max(kept, value(info->second));
  }
  std::vector<service::Sample> samples;
  for (const auto& [name, kept] : values) samples.push_back({{{"peer", name}}, kept});
  return samples;
}

std::map<InstanceId, stream::LinkInfo> Links::Infos() const {
  std::map<InstanceId, stream::LinkInfo> infos;
  for (stream::LinkInfo& link : publisher_->links()) infos[link.peer] = std::move(link);
  return infos;
}

}  // namespace salamander::prefill
