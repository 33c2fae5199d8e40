// A connection of the UCX transport: one endpoint, which reports its peer's death.
#ifndef SALAMANDER_COMMON_TRANSPORT_UCX_CONNECTION_H_
#define SALAMANDER_COMMON_TRANSPORT_UCX_CONNECTION_H_

#include <memory>
#include <string>

#include "common/transport/transport.h"
#include "common/transport/ucx_core.h"

namespace salamander::transport {

class UcxConnection final : public Connection {
 public:
  // Opened by the progress thread, soon; what goes wrong then shows in status() and in every Send.
  UcxConnection(std::shared_ptr<UcxCore> core, std::string worker_address);
  ~UcxConnection() override;
  void Send(std::string header, absl::Span<const std::byte> payload, std::function<void(absl::Status)> done) override;
  absl::Status status() const override;

 private:
  struct Link;
  const std::shared_ptr<UcxCore> core_;
  const std::shared_ptr<Link> link_;
};

}  // namespace salamander::transport

#endif  // SALAMANDER_COMMON_TRANSPORT_UCX_CONNECTION_H_
