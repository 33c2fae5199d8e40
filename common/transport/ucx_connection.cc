#include "common/transport/ucx_connection.h"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"

namespace salamander::transport {
namespace {

enum class EndpointState {
  kNew,      // not opened yet
  kOpen,     // in use, or broken and about to be closed
  kLeaving,  // has said goodbye, waits for what is underway
  kClosing,  // UCX is at it
  kClosed,
};

bool MayFollow(EndpointState from, EndpointState to) {
  switch (to) {
    case EndpointState::kNew:
      return false;
    case EndpointState::kOpen:
      return from == EndpointState::kNew;
    case EndpointState::kLeaving:
      return from == EndpointState::kOpen;
    case EndpointState::kClosing:
      return from == EndpointState::kOpen || from == EndpointState::kLeaving;
    case EndpointState::kClosed:
      break;
  }
  return from == EndpointState::kClosing;
}

// What is underway may take this long to end after a goodbye: longer only if the peer has stopped working.
constexpr std::chrono::milliseconds kLeaveTime{2000};

}  // namespace

// Everything that is not under the mutex belongs to the progress thread.
struct UcxConnection::Link : std::enable_shared_from_this<Link> {
  struct SendOperation {
    std::shared_ptr<Link> link;
    std::string header;
    absl::Span<const std::byte> payload;
    std::function<void(absl::Status)> done;
  };

  void Open(ucp_worker_h worker, const std::string& address);
  // Says goodbye; closes once nothing is underway.
  void Leave();
  void Ended();  // one operation that was underway
  // Ends what is unfinished, whatever the peer does.
  void Close();
  // The one way to change the state; false, and nothing changes, where the new one may not follow.
  bool Enter(EndpointState next);
  void StartSend(std::unique_ptr<SendOperation> operation);
  void EndSend(std::unique_ptr<SendOperation> operation, ucs_status_t status);
  void Finish(SendOperation& operation, const absl::Status& outcome);
  void Break(const absl::Status& why);
  // What a send that ends now gets.
  absl::Status Usable() const;

  static void OnSent(void* request, ucs_status_t status, void* operation);
  static void OnError(void* link, ucp_ep_h endpoint, ucs_status_t status);
  static void OnGoodbyeSent(void* request, ucs_status_t status, void* link);
  static void OnClosed(void* request, ucs_status_t status, void* link);

  UcxCore* core = nullptr;
  ucp_ep_h endpoint = nullptr;
  int64_t underway = 0;  // operations that UCX has

  mutable std::mutex mutex;
  std::condition_variable changed;
  EndpointState state = EndpointState::kNew;
  std::shared_ptr<Link> self;  // while UCX may call back
  bool cancelled = false;      // by the destructor
  absl::Status status;         // not OK once broken
  int64_t unfinished = 0;
};

void UcxConnection::Link::Open(ucp_worker_h worker, const std::string& address) {
  ucp_ep_params_t params{};
  params.field_mask =
      UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE | UCP_EP_PARAM_FIELD_ERR_HANDLER;
  params.address = reinterpret_cast<const ucp_address_t*>(address.data());
  params.err_mode = UCP_ERR_HANDLING_MODE_PEER;
  params.err_handler.cb = &Link::OnError;
  params.err_handler.arg = this;
  {
    std::lock_guard lock(mutex);
    self = shared_from_this();
  }
  Enter(EndpointState::kOpen);
  if (const ucs_status_t opened = ucp_ep_create(worker, &params, &endpoint); opened != UCS_OK) {
    endpoint = nullptr;
    Break(UcxError("connecting", opened));
    Close();
  }
}

bool UcxConnection::Link::Enter(EndpointState next) {
  // Released last: it may be what keeps this object.
  std::shared_ptr<Link> released;
  std::lock_guard lock(mutex);
  if (!MayFollow(state, next)) return false;
  state = next;
  if (next == EndpointState::kClosed) released = std::move(self);
  changed.notify_all();
  return true;
}

void UcxConnection::Link::Leave() {
  if (!Enter(EndpointState::kLeaving)) return;
  ucp_request_param_t param{};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS | UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
  param.flags = UCP_AM_SEND_FLAG_EAGER | UCP_AM_SEND_FLAG_REPLY;
  param.cb.send = &Link::OnGoodbyeSent;
  param.user_data = this;
  ++underway;
  const ucs_status_ptr_t request = ucp_am_send_nbx(endpoint, kUcxGoodbyeId, nullptr, 0, nullptr, 0, &param);
  if (!UCS_PTR_IS_PTR(request)) Ended();
  core->PostAfter(kLeaveTime, [weak = weak_from_this()] {
    if (const std::shared_ptr<Link> link = weak.lock()) link->Close();
  });
}

void UcxConnection::Link::OnGoodbyeSent(void* request, ucs_status_t /*status*/, void* link) {
  ucp_request_free(request);
  static_cast<Link*>(link)->Ended();
}

void UcxConnection::Link::Ended() {
  if (--underway > 0) return;
  {
    std::lock_guard lock(mutex);
    if (state != EndpointState::kLeaving) return;
  }
  // Not from inside UCX's callback.
  core->Post([alive = shared_from_this()] { alive->Close(); });
}

void UcxConnection::Link::Close() {
  if (!Enter(EndpointState::kClosing)) return;
  ucp_request_param_t param{};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS | UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
  param.flags = UCP_EP_CLOSE_FLAG_FORCE;
  param.cb.send = &Link::OnClosed;
  param.user_data = this;
  const ucs_status_ptr_t request =
      endpoint == nullptr ? nullptr : ucp_ep_close_nbx(std::exchange(endpoint, nullptr), &param);
  if (!UCS_PTR_IS_PTR(request)) Enter(EndpointState::kClosed);
}

void UcxConnection::Link::OnClosed(void* request, ucs_status_t /*status*/, void* link) {
  ucp_request_free(request);
  static_cast<Link*>(link)->Enter(EndpointState::kClosed);
}

void UcxConnection::Link::Break(const absl::Status& why) {
  std::lock_guard lock(mutex);
  if (status.ok()) status = absl::UnavailableError(why.message());
}

void UcxConnection::Link::OnError(void* link, ucp_ep_h /*endpoint*/, ucs_status_t status) {
  auto& broken = *static_cast<Link*>(link);
  broken.Break(UcxError("link", status));
  // Not from inside UCX's own handling of the error.
  broken.core->Post([alive = broken.shared_from_this()] { alive->Close(); });
}

void UcxConnection::Link::StartSend(std::unique_ptr<SendOperation> operation) {
  if (const size_t bytes = operation->header.size(); bytes > kMaxHeaderBytes) {
    return Finish(*operation,
                  absl::InvalidArgumentError(absl::StrCat("header of ", bytes, " bytes, at most ", kMaxHeaderBytes)));
  }
  if (const absl::Status now = Usable(); !now.ok()) return Finish(*operation, now);
  SendOperation& op = *operation.release();  // UCX's until it ends.
  ucp_request_param_t param{};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS | UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
  // The receiver must know the endpoint to understand a goodbye.
  param.flags =
      UCP_AM_SEND_FLAG_REPLY | (op.payload.size() > kUcxEagerBytes ? UCP_AM_SEND_FLAG_RNDV : UCP_AM_SEND_FLAG_EAGER);
  param.cb.send = &Link::OnSent;
  param.user_data = &op;
  const ucs_status_ptr_t request = ucp_am_send_nbx(endpoint, kUcxMessageId, op.header.data(), op.header.size(),
                                                   op.payload.data(), op.payload.size(), &param);
  ++underway;
  if (!UCS_PTR_IS_PTR(request)) EndSend(std::unique_ptr<SendOperation>(&op), UCS_PTR_RAW_STATUS(request));
}

void UcxConnection::Link::OnSent(void* request, ucs_status_t status, void* operation) {
  ucp_request_free(request);
  std::unique_ptr<SendOperation> ended(static_cast<SendOperation*>(operation));
  const std::shared_ptr<Link> link = ended->link;
  link->EndSend(std::move(ended), status);
}

void UcxConnection::Link::EndSend(std::unique_ptr<SendOperation> operation, ucs_status_t ended) {
  if (ended != UCS_OK) Break(UcxError("sending", ended));
  // Once the link is being closed, the receiver's end of a send may have been to refuse it.
  Finish(*operation, Usable());
  Ended();
}

absl::Status UcxConnection::Link::Usable() const {
  std::lock_guard lock(mutex);
  return cancelled ? absl::CancelledError("the link was closed") : status;
}

void UcxConnection::Link::Finish(SendOperation& operation, const absl::Status& outcome) {
  std::exchange(operation.done, nullptr)(outcome);
  std::lock_guard lock(mutex);
  if (--unfinished == 0) changed.notify_all();
}

UcxConnection::UcxConnection(std::shared_ptr<UcxCore> core, std::string worker_address)
    : core_(std::move(core)), link_(std::make_shared<Link>()) {
  link_->core = core_.get();
  core_->Post(
      [link = link_, worker = core_->outbox(), address = std::move(worker_address)] { link->Open(worker, address); });
}

UcxConnection::~UcxConnection() {
  {
    std::lock_guard lock(link_->mutex);
    link_->cancelled = true;
  }
  if (!core_->Post([link = link_] { link->Leave(); })) return;
  std::unique_lock lock(link_->mutex);
  link_->changed.wait(lock, [this] { return link_->state == EndpointState::kClosed && link_->unfinished == 0; });
}

void UcxConnection::Send(std::string header, absl::Span<const std::byte> payload,
                         std::function<void(absl::Status)> done) {
  {
    std::lock_guard lock(link_->mutex);
    ++link_->unfinished;
  }
  // std::function wants copies, so the task cannot own the operation by a unique_ptr.
  auto operation = std::make_shared<std::unique_ptr<Link::SendOperation>>(
      new Link::SendOperation{link_, std::move(header), payload, std::move(done)});
  core_->Post([operation] {
    Link& link = *(*operation)->link;
    link.StartSend(std::move(*operation));
  });
}

absl::Status UcxConnection::status() const {
  std::lock_guard lock(link_->mutex);
  return link_->status;
}

}  // namespace salamander::transport
