// How every process of the project dials another, and the limits both ends agree on.
//
//   auto stub = v1::Inference::NewStub(service::MakeChannel("127.0.0.1:7000"));
//
// The one place for what calls carry to be let in: a certificate, the cluster's token, a client's key.
#ifndef SALAMANDER_COMMON_SERVICE_CHANNEL_H_
#define SALAMANDER_COMMON_SERVICE_CHANNEL_H_

#include <grpcpp/channel.h>
#include <grpcpp/server_builder.h>

#include <memory>
#include <string>

#include "common/service/security.h"

namespace salamander::service {

// Largest gRPC message, both ways: a million-token prompt as text is several MB.
inline constexpr int kMaxMessageBytes = 256 << 20;

// Calls that one connection may have running; more wait at the client.
inline constexpr int kMaxStreamsPerConnection = 4096;

// The dialing end pings an otherwise silent connection this often and gives it up when no answer came in time, so a
// host that vanished without a word is noticed in about their sum; the serving end pings every ten seconds.
inline constexpr int kKeepaliveTimeMs = 2000;
inline constexpr int kKeepaliveTimeoutMs = 3000;

// Metadata of every call.
inline constexpr char kClusterTokenKey[] = "salamander-cluster-token";
inline constexpr char kAuthorizationKey[] = "authorization";  // "Bearer KEY"

struct ChannelSecurity {
  TlsFiles tls;  // empty: plain text
  // Sent with every call unless empty.
  std::string cluster_token;
  std::string api_key;
};
// Of a member of the cluster.
inline ChannelSecurity MemberSecurity(const Security& security) {
  return {.tls = security.tls, .cluster_token = security.cluster_token, .api_key = {}};
}

struct ChannelOptions {
  // Who the peer says it is, where that is not its address: the name, with a port, that the address was found under.
  std::string authority = {};
  // Whether gRPC keeps what a call sends, to send it again if the peer surely has not seen it. That costs a part of
  // every call; who treats UNAVAILABLE itself needs none.
  bool retries = true;
  // Otherwise channels of this process to the same target share one.
  bool own_connection = false;
};

// Connects lazily, at the first call, and again after failures (0.2 s to 2 s apart). Never through an HTTP proxy: the
// peers of a cluster reach each other directly.
std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address, const ChannelSecurity& security = {},
                                           const ChannelOptions& options = {});

// The server's side of the same agreement, and bounds on what clients can make it hold.
void ConfigureServer(grpc::ServerBuilder& builder);

}  // namespace salamander::service

#endif  // SALAMANDER_COMMON_SERVICE_CHANNEL_H_
