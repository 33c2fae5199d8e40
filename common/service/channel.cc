#include "common/service/channel.h"

#include <arpa/inet.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/client_interceptor.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/service/callback_queue.h"
#include "common/service/tls.h"

namespace salamander::service {
namespace {

// A connection that has not finished its HTTP/2 handshake by then is closed: half-open ones cost us no descriptors.
constexpr int kHandshakeTimeoutMs = 5000;
// How often a server pings. gRPC 1.51 starts this timer before a connection is whole; one that fires while the thread
// which makes the connection waits for a core crashes the process. With two seconds that was seen once in thirty times
// 4000 connections, made at once on two cores that six processes wanted.
constexpr int kServerKeepaliveTimeMs = 10000;
// For receive buffers of all connections together. Sixteen largest messages at once.
constexpr size_t kReceiveMemoryBytes = size_t{16} * kMaxMessageBytes;
// Threads of gRPC's blocking services (reflection); our own services use callbacks and need none.
constexpr int kMaxBlockingThreads = 16;

// A numeric address needs no resolver. gRPC would still ask its DNS resolver, which answers from another thread, and a
// call that is cancelled while it waits for that answer can crash gRPC 1.51 (seen under ThreadSanitizer, in
// ClientChannel::CallData::CheckResolutionLocked).
std::string Target(const std::string& address) {
  const size_t colon = address.rfind(':');
  const std::string host = address.substr(0, colon == std::string::npos ? 0 : colon);
  in_addr ipv4;
  in6_addr ipv6;
  if (inet_pton(AF_INET, host.c_str(), &ipv4) == 1) return absl::StrCat("ipv4:", address);
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (bracketed && inet_pton(AF_INET6, host.substr(1, host.size() - 2).c_str(), &ipv6) == 1) {
    return absl::StrCat("ipv6:", address);
  }
  return address;
}

using Metadata = std::vector<std::pair<std::string, std::string>>;

// Adds metadata to every call of a channel, whatever API the call is made by.
class MetadataAdder final : public grpc::experimental::Interceptor {
 public:
  explicit MetadataAdder(const Metadata* metadata) : metadata_(*metadata) {}
  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    using grpc::experimental::InterceptionHookPoints;
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_INITIAL_METADATA)) {
      for (const auto& [key, value] : metadata_) methods->GetSendInitialMetadata()->emplace(key, value);
    }
    methods->Proceed();
  }

 private:
  const Metadata& metadata_;
};

// Belongs to a channel and lives as long.
class ChannelKeeper final : public grpc::experimental::ClientInterceptorFactoryInterface {
 public:
  ChannelKeeper(Metadata metadata, std::shared_ptr<CertificateWatch> watch)
      : metadata_(std::move(metadata)), watch_(std::move(watch)) {}
  grpc::experimental::Interceptor* CreateClientInterceptor(grpc::experimental::ClientRpcInfo*) override {
    return metadata_.empty() ? nullptr : new MetadataAdder(&metadata_);  // gRPC's; calls keep their channel
  }

 private:
  const Metadata metadata_;
  const std::shared_ptr<CertificateWatch> watch_;
};

Metadata MetadataOf(const ChannelSecurity& security) {
  Metadata metadata;
  // The token may have any bytes; metadata values may not.
  if (!security.cluster_token.empty()) {
    metadata.emplace_back(kClusterTokenKey, absl::BytesToHexString(security.cluster_token));
  }
  if (!security.api_key.empty()) metadata.emplace_back(kAuthorizationKey, absl::StrCat("Bearer ", security.api_key));
  return metadata;
}

}  // namespace

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address, const ChannelSecurity& security,
                                           const ChannelOptions& options) {
  KeepCallbackQueue();
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetMaxSendMessageSize(kMaxMessageBytes);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveTimeMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);  // no limit
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2000);
  // Despite its name also the time one attempt to connect may take.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 2000);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  // What comes back over gRPC is small: the window need not grow.
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  if (!options.retries) arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  if (options.own_connection) arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  const std::string& authority = options.authority;
  if (!authority.empty()) arguments.SetString(GRPC_ARG_DEFAULT_AUTHORITY, authority);
  // What the certificate must name, where that is not what is dialed.
  const std::string& name = security.tls.server_name;
  if (!name.empty() || !authority.empty()) {
    arguments.SetSslTargetNameOverride(name.empty() ? authority.substr(0, authority.rfind(':')) : name);
  }
  std::vector<std::unique_ptr<grpc::experimental::ClientInterceptorFactoryInterface>> interceptors;
  interceptors.push_back(std::make_unique<ChannelKeeper>(MetadataOf(security), WatchCertificates(security.tls)));
  return grpc::experimental::CreateCustomChannelWithInterceptors(Target(address), ChannelCredentials(security.tls),
                                                                 arguments, std::move(interceptors));
}

void ConfigureServer(grpc::ServerBuilder& builder) {
  KeepCallbackQueue();
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.SetMaxSendMessageSize(kMaxMessageBytes);
  // Otherwise a second process binds the same port without an error and gets half of the connections.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxStreamsPerConnection);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kHandshakeTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kServerKeepaliveTimeMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // Accepts our clients' pings, with room for jitter; faster ones are a misbehaving client's.
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, kKeepaliveTimeMs / 2);
  // gRPC's own bandwidth probes count as pings too: a quiet stream of a long prefill must not die of "too many pings".
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);
  grpc::ResourceQuota quota("salamander_server");
  quota.Resize(kReceiveMemoryBytes);
  quota.SetMaxThreads(kMaxBlockingThreads);
  builder.SetResourceQuota(quota);
}

}  // namespace salamander::service
