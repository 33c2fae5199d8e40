#include "kernels/cuda/repeats.h"

#include <algorithm>
#include <functional>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace salamander::kernels::cuda {

Repeats::~Repeats() {
  for (auto& [key, repeat] : repeats_) Drop(repeat);
}

std::string Repeats::Name(const Repeat& repeat) const {
  return absl::StrCat("repeat of ", repeat.key.rows, " rows, ", repeat.key.max_tokens, " tokens, variant ",
                      repeat.key.variant);
}

Repeats::Repeat& Repeats::Find(const RepeatKey& key) {
  const auto found = repeats_.find(key);
  if (found != repeats_.end()) return found->second;
  if (repeats_.size() == kMaxKeys) {
    const auto oldest = std::min_element(repeats_.begin(), repeats_.end(), [](const auto& a, const auto& b) {
      return a.second.last_used < b.second.last_used;
    });
    Drop(oldest->second);
    repeats_.erase(oldest);
  }
  Repeat& repeat = repeats_[key];
  repeat.key = key;
  return repeat;
}

// Leaves the repeat as if it had never run.
void Repeats::Drop(Repeat& repeat) {
  if (repeat.graph != nullptr) {
    // It may still run. A fault of it will be told by the next op.
    (void)faults_->Check(cudaStreamSynchronize(stream_), "forget a repeat");
    cudaGraphExecDestroy(repeat.graph);
  }
  if (repeat.device_lists != nullptr) {
    bytes_ -= memory_.BytesOf(repeat.device_lists);
    memory_.Free(repeat.device_lists);
  }
  for (cudaEvent_t event : repeat.sent) {
    if (event != nullptr) cudaEventDestroy(event);
  }
  repeat = {.key = repeat.key, .recordable = repeat.recordable, .last_used = repeat.last_used};
}

absl::Status Repeats::Begin(const RepeatKey& key, bool record) {
  if (active_ != nullptr) return absl::FailedPreconditionError(absl::StrCat("the ", Name(*active_), " has not ended"));
  Repeat& repeat = Find(key);
  repeat.last_used = ++uses_;
  op_ = 0;
  list_bytes_ = 0;
  failure_ = absl::OkStatus();
  if (!record || !repeat.recordable) {
    phase_ = Phase::kUnrecorded;
  } else if (repeat.graph != nullptr) {
    phase_ = Phase::kReplay;
    repeat.turn ^= 1;
    RETURN_IF_ERROR(faults_->Check(cudaEventSynchronize(repeat.sent[repeat.turn]), "begin a repeat"));
  } else if (repeat.ran) {
    phase_ = Phase::kCapture;
    if (const absl::Status begun = BeginCapture(repeat); !begun.ok()) {
      Drop(repeat);
      repeat.recordable = false;
      return Annotate(begun, Name(repeat));
    }
  } else {
    phase_ = Phase::kFirst;
  }
  active_ = &repeat;
  return absl::OkStatus();
}

absl::Status Repeats::BeginCapture(Repeat& repeat) {
  const int64_t bytes = std::max<int64_t>(repeat.list_bytes, 1);
  ASSIGN_OR_RETURN(void* const device, memory_.Allocate(bytes));
  repeat.device_lists = static_cast<std::byte*>(device);
  bytes_ += memory_.BytesOf(device);
  for (PinnedMemory& host : repeat.host_lists) {
    ASSIGN_OR_RETURN(host, AllocatePinned(bytes));
  }
  for (cudaEvent_t& event : repeat.sent) {
    RETURN_IF_ERROR(faults_->Check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "create an event"));
  }
  // Other threads' calls are none of this capture's business, and neither are modules loaded meanwhile.
  return faults_->Check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeRelaxed), "begin a capture");
}

absl::StatusOr<bool> Repeats::NextOp(const OpSignature& op) {
  RETURN_IF_ERROR(failure_);
  if (phase_ == Phase::kCapture) {
    active_->ops.push_back(op);
    active_->buffers.insert(op.buffers().begin(), op.buffers().end());
  }
  if (phase_ != Phase::kReplay) return true;
  const size_t at = op_++;
  if (at >= active_->ops.size()) {
    return absl::InternalError(
        absl::StrCat(OpName(op.kind()), " comes after all ", active_->ops.size(), " recorded ops"));
  }
  const OpSignature& recorded = active_->ops[at];
  if (recorded == op) return false;
  if (recorded.kind() != op.kind()) {
    return absl::InternalError(
        absl::StrCat("op ", at, " is ", OpName(op.kind()), ", recorded was ", OpName(recorded.kind())));
  }
  return absl::InternalError(
      absl::StrCat("op ", at, ", ", OpName(op.kind()), ", has other shapes, weights or buffers than the one recorded"));
}

absl::StatusOr<ListSlot> Repeats::TakeList(int64_t bytes) {
  const int64_t at = list_bytes_;
  list_bytes_ += AlignedListBytes(bytes);
  if (phase_ == Phase::kFirst || phase_ == Phase::kUnrecorded) return ListSlot{};
  if (list_bytes_ > active_->list_bytes) {
    return absl::InternalError(
        absl::StrCat("lists of more than ", active_->list_bytes, " bytes, which those of the first run had"));
  }
  return ListSlot{active_->host_lists[active_->turn].get() + at, active_->device_lists + at};
}

void Repeats::Fail(const absl::Status& status) {
  if (failure_.ok()) failure_ = status;
}

absl::Status Repeats::End() {
  if (active_ == nullptr) return absl::FailedPreconditionError("no repeat has begun");
  Repeat& repeat = *std::exchange(active_, nullptr);
  const absl::Status status = Finish(repeat);
  return Annotate(status, Name(repeat));
}

absl::Status Repeats::Finish(Repeat& repeat) {
  switch (phase_) {
    case Phase::kUnrecorded:
      return failure_;
    case Phase::kFirst:
      RETURN_IF_ERROR(failure_);
      repeat.list_bytes = list_bytes_;
      repeat.ran = true;
      return absl::OkStatus();
    case Phase::kCapture:
      if (absl::Status captured = EndCapture(repeat); !captured.ok()) {
        Drop(repeat);
        repeat.recordable = false;
        return captured;
      }
      return Launch(repeat);
    case Phase::kReplay:
      if (failure_.ok() && (op_ != repeat.ops.size() || list_bytes_ != repeat.list_bytes)) {
        Fail(absl::InternalError(absl::StrCat("ended after ", op_, " of ", repeat.ops.size(), " recorded ops, with ",
                                              list_bytes_, " of ", repeat.list_bytes, " bytes of lists")));
      }
      if (!failure_.ok()) {
        Drop(repeat);  // What was recorded is not what comes again.
        return failure_;
      }
      return Launch(repeat);
  }
  return absl::OkStatus();
}

// The capture ends on every path: the stream is of no use before.
absl::Status Repeats::EndCapture(Repeat& repeat) {
  cudaGraph_t graph = nullptr;
  const absl::Status ended = faults_->Check(cudaStreamEndCapture(stream_, &graph), "end a capture");
  absl::Status status = failure_.ok() ? ended : failure_;
  if (status.ok() && list_bytes_ != repeat.list_bytes) {
    status = absl::InternalError(
        absl::StrCat("lists of ", list_bytes_, " bytes, those of the first run had ", repeat.list_bytes));
  }
  if (status.ok()) {
    status = faults_->Check(cudaGraphInstantiate(&repeat.graph, graph, 0), "make a graph");
    if (!status.ok()) repeat.graph = nullptr;
  }
  if (graph != nullptr) cudaGraphDestroy(graph);
  return status;
}

absl::Status Repeats::Launch(Repeat& repeat) {
  if (repeat.list_bytes > 0) {
    RETURN_IF_ERROR(faults_->Check(cudaMemcpyAsync(repeat.device_lists, repeat.host_lists[repeat.turn].get(),
                                                   repeat.list_bytes, cudaMemcpyHostToDevice, stream_),
                                   "copy lists"));
  }
  RETURN_IF_ERROR(faults_->Check(cudaEventRecord(repeat.sent[repeat.turn], stream_), "copy lists"));
  return faults_->Check(cudaGraphLaunch(repeat.graph, stream_), "launch a graph");
}

void Repeats::Forget(const void* memory, int64_t bytes) {
  const void* const end = static_cast<const std::byte*>(memory) + bytes;
  for (auto& [key, repeat] : repeats_) {
    const auto first = repeat.buffers.lower_bound(memory);
    if (first != repeat.buffers.end() && std::less<>()(*first, end)) Drop(repeat);
  }
}

}  // namespace salamander::kernels::cuda
