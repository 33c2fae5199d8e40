#include "common/transport/ucx_transport.h"

#include <utility>

#include "common/base/status_macros.h"
#include "common/transport/ucx_address.h"
#include "common/transport/ucx_config.h"
#include "common/transport/ucx_connection.h"
#include "common/transport/ucx_core.h"

namespace salamander::transport {
namespace {

class UcxTransport final : public Transport {
 public:
  UcxTransport(std::shared_ptr<UcxCore> core, std::string name) : core_(std::move(core)), name_(std::move(name)) {}
  ~UcxTransport() override { core_->Stop(); }

  std::string address() const override { return core_->address(); }
  std::string name() const override { return name_; }
  void SetHandler(MessageHandler handler) override { core_->SetHandler(std::move(handler)); }
  absl::StatusOr<std::unique_ptr<Connection>> Connect(const std::string& address) override {
    ASSIGN_OR_RETURN(std::string worker_address, UnpackUcxAddress(address));
    return std::make_unique<UcxConnection>(core_, std::move(worker_address));
  }

 private:
  const std::shared_ptr<UcxCore> core_;
  const std::string name_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Transport>> CreateUcxTransport(const UcxOptions& options) {
  ASSIGN_OR_RETURN(std::shared_ptr<UcxCore> core, UcxCore::Create(options));
  return std::make_unique<UcxTransport>(std::move(core), DescribeUcx(options));
}

}  // namespace salamander::transport
