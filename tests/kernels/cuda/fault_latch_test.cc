// What is said of a lost device: which ops may have been the cause, and the same by all who use it. Needs no GPU.
#include <gtest/gtest.h>

#include "kernels/cuda/cuda_status.h"

namespace salamander::kernels::cuda {
namespace {

TEST(FaultLatchTest, FirstFaultNamesTheOpsUnderWayAndStays) {
  FaultLatch latch(/*device=*/101);
  EXPECT_TRUE(latch.Check(cudaSuccess, "copy").ok());
  latch.Queued(OpKind::kEmbed);
  latch.Queued(OpKind::kMatMul);
  const uint64_t known = latch.queued();
  latch.Queued(OpKind::kSiluMul);
  latch.Queued(OpKind::kMatMul);
  latch.Queued(OpKind::kSiluMul);
  latch.Settle(known);
  latch.Settle(1);  // An event that was waited for late.
  const absl::Status fault = latch.Check(cudaErrorIllegalAddress, "wait for an event");
  EXPECT_EQ(fault.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(fault.message(),
            "cuda: wait for an event: an illegal memory access was encountered; ops under way: matmul, silu_mul");
  latch.Queued(OpKind::kEmbed);
  EXPECT_EQ(latch.Check(cudaErrorLaunchFailure, "copy"), fault);
  EXPECT_EQ(latch.Check(cudaSuccess, "copy"), fault);
  EXPECT_EQ(latch.status(), fault);
}

// Whoever meets it first, it is a device's fault and no queue's.
TEST(FaultLatchTest, LatchesOfADeviceTellTheSame) {
  FaultLatch first(102), second(102), elsewhere(103);
  first.Queued(OpKind::kAttendBlocks);
  elsewhere.Queued(OpKind::kEmbed);
  const absl::Status fault = second.Check(cudaErrorIllegalAddress, "copy on device");
  EXPECT_EQ(fault.message(),
            "cuda: copy on device: an illegal memory access was encountered; ops under way: attend_blocks");
  EXPECT_EQ(first.status(), fault);
  EXPECT_EQ(FaultLatch(102).status(), fault);
  EXPECT_TRUE(elsewhere.status().ok());
}

TEST(FaultLatchTest, WithNothingUnderWayNoOpIsNamed) {
  FaultLatch latch(104);
  latch.Queued(OpKind::kEmbed);
  latch.Settle(latch.queued());
  EXPECT_EQ(latch.Check(cudaErrorECCUncorrectable, "copy to host").message(),
            "cuda: copy to host: uncorrectable ECC error encountered");
}

TEST(FaultLatchTest, OtherErrorsPass) {
  FaultLatch latch(105);
  latch.Queued(OpKind::kEmbed);
  EXPECT_EQ(latch.Check(cudaErrorMemoryAllocation, "allocate").code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(latch.Check(cudaErrorInvalidValue, "embed").message(), "cuda: embed: invalid argument");
  EXPECT_TRUE(latch.status().ok());
}

}  // namespace
}  // namespace salamander::kernels::cuda
