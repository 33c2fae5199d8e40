// Options that prefill and decode workers share.
#ifndef SALAMANDER_COMMON_SERVICE_WORKER_OPTIONS_H_
#define SALAMANDER_COMMON_SERVICE_WORKER_OPTIONS_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/service/server.h"

namespace salamander::service {

struct WorkerOptions {
  ServerOptions server;
  std::string model;  // checkpoint folder
  std::string load_format = "safetensors";
  std::string device = "cpu";        // or cuda, cuda:N
  std::vector<std::string> routers;  // host:port
  std::string name;                  // default ROLE-INSTANCE
  std::string advertise;             // host:port routers reach the worker at; default: the address it listens on
  int threads = 1;
  int64_t memory_bytes = 0;  // ledger capacity; 0: 80% of the machine's memory, or 90% of what a GPU has free
  int64_t transfer_buffer_bytes = 64 << 20;
  double min_link_bytes_per_second = 0;
  double missing_item_seconds = 5;
  std::string ucx_transports;   // UCX_TLS
  std::string ucx_net_devices;  // UCX_NET_DEVICES
  // When set, each request's received items are written there as REQUEST.safetensors before decoding (decode workers).
  std::string capture_dir;
  // The worker cannot go on (a router refused it, its GPU failed): called from an internal thread, perhaps again.
  std::function<void(absl::Status)> on_fatal;
};

}  // namespace salamander::service

#endif  // SALAMANDER_COMMON_SERVICE_WORKER_OPTIONS_H_
