// How the router calls one worker: a channel and the stubs on it.
#ifndef SALAMANDER_ROUTER_WORKER_CLIENT_H_
#define SALAMANDER_ROUTER_WORKER_CLIENT_H_

#include <memory>
#include <string>

#include "common/service/channel.h"
#include "salamander/v1/cluster.grpc.pb.h"

namespace salamander::router {

// Shared by all requests on the worker; lives as long as any of them. Any thread.
struct WorkerClient {
  // Connects at the first call.
  explicit WorkerClient(const std::string& address, const service::ChannelSecurity& security = {})
      : WorkerClient(service::MakeChannel(address, security, {.retries = false})) {}
  explicit WorkerClient(const std::shared_ptr<grpc::Channel>& channel)
      : prefill(v1::PrefillWorker::NewStub(channel)), decode(v1::DecodeWorker::NewStub(channel)) {}

  const std::unique_ptr<v1::PrefillWorker::Stub> prefill;
  const std::unique_ptr<v1::DecodeWorker::Stub> decode;
};

}  // namespace salamander::router

#endif  // SALAMANDER_ROUTER_WORKER_CLIENT_H_
