// Host memory for items is the device's own, is used again, and is replaced where the device has none.
#include "common/worker/device_memory.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "common/worker/host_pool.h"
#include "kernels/cpu/cpu_ops.h"

namespace salamander::worker {
namespace {

using stream::HostBuffer;
using stream::MemoryCopy;
using stream::NewHostBuffer;

// Counts what it gives, and gives nothing while `none`.
class CountingOps final : public kernels::CpuOps {
 public:
  CountingOps() : CpuOps(1, kernels::CpuIsa::kPortable) {}
  absl::StatusOr<void*> AllocateHost(int64_t bytes) override {
    if (none) return absl::ResourceExhaustedError("no pinned memory");
    ++allocated;
    absl::StatusOr<void*> memory = CpuOps::AllocateHost(bytes);
    if (memory.ok()) sizes[*memory] = bytes;
    return memory;
  }
  void FreeHost(void* memory) override {
    EXPECT_EQ(sizes.erase(memory), 1u);
    CpuOps::FreeHost(memory);
  }

  bool none = false;
  int allocated = 0;
  std::map<void*, int64_t> sizes;  // not freed
};

TEST(DeviceMemoryTest, HostMemoryIsUsedAgain) {
  CountingOps ops;
  {
    DeviceMemory memory(&ops);
    std::byte* first = nullptr;
    for (int64_t bytes : {1000000, 999000, 920000}) {  // nearly the same
      const HostBuffer buffer = NewHostBuffer(&memory, bytes);
      if (first == nullptr) first = buffer.get();
      EXPECT_EQ(buffer.get(), first) << bytes;
      std::fill_n(buffer.get(), bytes, std::byte{1});
    }
    EXPECT_EQ(ops.allocated, 1);
    const HostBuffer one = NewHostBuffer(&memory, 1000000), other = NewHostBuffer(&memory, 1000000);
    EXPECT_NE(one.get(), other.get());
    const HostBuffer larger = NewHostBuffer(&memory, 1500000), small = NewHostBuffer(&memory, 1);
    EXPECT_EQ(ops.allocated, 4);
  }
  EXPECT_TRUE(ops.sizes.empty());
}

TEST(DeviceMemoryTest, SizesAreRoundedUpByAQuarterAtMost) {
  CountingOps ops;
  DeviceMemory memory(&ops);
  for (int64_t bytes : {65537, 100000, 131072, 131073, 1048576, 8388609, 12582912, 100000000}) {
    const HostBuffer buffer = NewHostBuffer(&memory, bytes);
    ASSERT_EQ(ops.sizes.count(buffer.get()), 1u);
    EXPECT_GE(ops.sizes[buffer.get()], bytes);
    EXPECT_LE(ops.sizes[buffer.get()], bytes + bytes / 4 + 1);
  }
}

TEST(DeviceMemoryTest, IdleMemoryIsBounded) {
  CountingOps ops;
  DeviceMemory memory(&ops);
  {
    std::vector<HostBuffer> buffers;
    for (int i = 0; i < 5; ++i) buffers.push_back(NewHostBuffer(&memory, HostPool::kKeptBytes / 4));
    EXPECT_EQ(ops.sizes.size(), 5u);
  }
  EXPECT_EQ(ops.sizes.size(), 4u);
}

TEST(DeviceMemoryTest, WithoutPinnedMemoryItIsTheHosts) {
  CountingOps ops;
  DeviceMemory memory(&ops);
  ops.none = true;
  HostBuffer plain = NewHostBuffer(&memory, 100000);
  std::fill_n(plain.get(), 100000, std::byte{1});
  ops.none = false;
  const HostBuffer pinned = NewHostBuffer(&memory, 100000);
  plain.reset();
  EXPECT_EQ(ops.allocated, 1);
  // What was not of the device is not kept.
  const HostBuffer next = NewHostBuffer(&memory, 100000);
  EXPECT_EQ(ops.allocated, 2);
}

TEST(DeviceMemoryTest, CopiesPieces) {
  CountingOps ops;
  DeviceMemory memory(&ops);
  std::vector<std::byte> from(100), to(100);
  for (size_t i = 0; i < from.size(); ++i) from[i] = static_cast<std::byte>(i);
  const std::vector<MemoryCopy> pieces = {{to.data(), from.data() + 60, 40}, {to.data() + 40, from.data(), 60}};
  ASSERT_TRUE(memory.ToHost(pieces).ok());
  EXPECT_EQ(to[0], std::byte{60});
  EXPECT_EQ(to[39], std::byte{99});
  EXPECT_EQ(to[99], std::byte{59});
  for (const auto copy : {&DeviceMemory::ToDevice, &DeviceMemory::OnDevice}) {
    std::fill(to.begin(), to.end(), std::byte{0});
    ASSERT_TRUE((memory.*copy)(pieces).ok());
    EXPECT_EQ(to[99], std::byte{59});
  }
}

}  // namespace
}  // namespace salamander::worker
