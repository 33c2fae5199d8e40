// Rates of what moves state: codecs by element type and instruction set, checksum, copy, and UCX between two processes.
//
//   stream_bench            prints tables
//
// Codec rates count raw bytes on one core. The tile is that of the released model's keys and values: 64 × 128.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <functional>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "common/stream/codec.h"
#include "common/stream/lossless.h"
#include "common/stream/tile_kernels.h"
#include "common/transport/ucx_transport.h"

namespace salamander::stream {
namespace {

constexpr size_t kItemBytes = 8 << 20;  // Keys and values of an 8192-token span of one layer.

// Best of several: the machine may be busy with other things.
double GigabytesPerSecond(size_t bytes, const std::function<void()>& run) {
  double best = 0;
  for (int i = 0; i < 15; ++i) {
    const auto start = std::chrono::steady_clock::now();
    run();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::max(best, bytes / seconds / 1e9);
  }
  return best;
}

std::vector<std::byte> NormalNumbers(v1::ElementType type) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<std::byte> bytes(kItemBytes);
  const size_t width = type == v1::ELEMENT_TYPE_BFLOAT16 ? 2 : 4;
  for (size_t i = 0; i < bytes.size(); i += width) {
    const float value = normal(random);
    std::memcpy(&bytes[i], reinterpret_cast<const std::byte*>(&value) + 4 - width, width);
  }
  return bytes;
}

void BenchCodec(const TileKernels& kernels, v1::ElementType type) {
  const int64_t width = type == v1::ELEMENT_TYPE_BFLOAT16 ? 2 : 4;
  const ItemShape shape{type, 64 * 128 * width};
  const std::vector<std::byte> raw = NormalNumbers(type);
  std::vector<std::byte> encoded(MaxLosslessBytes(shape, kItemBytes)), decoded(kItemBytes);
  const absl::Span<const std::byte> source(raw);
  const absl::Span<std::byte> into = absl::MakeSpan(decoded);
  int64_t bytes = 0;
  const double encode = GigabytesPerSecond(kItemBytes, [&] {
    bytes = EncodeLossless(kernels, shape, absl::MakeConstSpan(&source, 1), absl::MakeSpan(encoded)).value_or(0);
  });
  const auto payload = absl::MakeConstSpan(encoded).subspan(0, bytes);
  bool right = true;
  const double decode = GigabytesPerSecond(
      kItemBytes, [&] { right &= DecodeLossless(kernels, shape, payload, absl::MakeConstSpan(&into, 1)).ok(); });
  right &= decoded == raw;
  std::printf("| lossless %s, %s | %.1f | %.1f | %.3f |%s\n", type == v1::ELEMENT_TYPE_BFLOAT16 ? "BF16" : "float32",
              kernels.name, encode, decode, static_cast<double>(kItemBytes) / bytes, right ? "" : " WRONG BYTES");
}

void BenchMemory() {
  std::vector<std::byte> from(kItemBytes, std::byte{1}), to(kItemBytes);
  volatile uint64_t sink = 0;
  std::printf("| checksum XXH3-64 | %.1f |\n", GigabytesPerSecond(kItemBytes, [&] { sink = Checksum(from); }));
  std::printf("| copy (memcpy) | %.1f |\n",
              GigabytesPerSecond(kItemBytes, [&] { std::memcpy(to.data(), from.data(), kItemBytes); }));
}

// Counts down; Wait returns at zero.
class Latch {
 public:
  explicit Latch(int count) : count_(count) {}
  void Down() {
    std::lock_guard lock(mutex_);
    if (--count_ == 0) zero_.notify_all();
  }
  void Wait() {
    std::unique_lock lock(mutex_);
    zero_.wait(lock, [this] { return count_ == 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable zero_;
  int count_;
};

// The child: receives everything into one buffer until the parent closes the pipe.
[[noreturn]] void ReceiveAll(const transport::UcxOptions& options, int address_pipe, int end_pipe) {
  auto transport = transport::CreateUcxTransport(options);
  if (!transport.ok()) _exit(1);
  std::vector<std::byte> memory(64 << 20);
  (*transport)->SetHandler([&](std::string_view, std::unique_ptr<transport::IncomingMessage> message) {
    message->Receive(absl::MakeSpan(memory).subspan(0, message->payload_bytes()), [](absl::Status) {});
  });
  const std::string address = (*transport)->address();
  if (write(address_pipe, address.data(), address.size()) != static_cast<ssize_t>(address.size())) _exit(1);
  char byte;
  if (read(end_pipe, &byte, 1) != 0) _exit(1);
  _exit(0);
}

void SendAll(const transport::UcxOptions& options, const std::string& address, const char* label) {
  auto transport = transport::CreateUcxTransport(options);
  if (!transport.ok()) return std::printf("| %s | %s |\n", label, transport.status().ToString().c_str()), void();
  (*transport)->SetHandler([](std::string_view, std::unique_ptr<transport::IncomingMessage>) {});
  auto connection = *(*transport)->Connect(address);
  const std::vector<std::byte> payload(64 << 20, std::byte{7});
  std::printf("| %s |", label);
  for (size_t bytes = 64 << 10; bytes <= payload.size(); bytes *= 4) {
    const int count = static_cast<int>(std::clamp<size_t>((256 << 20) / bytes, 4, 256));
    const double rate = GigabytesPerSecond(bytes * count, [&] {
      Latch sent(count);
      for (int i = 0; i < count; ++i) {
        connection->Send("bench", absl::MakeSpan(payload).subspan(0, bytes), [&](absl::Status) { sent.Down(); });
      }
      sent.Wait();
    });
    std::printf(" %.2f |", rate);
    std::fflush(stdout);
  }
  std::printf("\n");
}

void BenchUcx(const char* label, const char* transports) {
  const transport::UcxOptions options{.transports = transports, .net_devices = "lo"};
  int address_pipe[2], end_pipe[2];
  if (pipe(address_pipe) != 0 || pipe(end_pipe) != 0) return;
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    close(end_pipe[1]);
    ReceiveAll(options, address_pipe[1], end_pipe[0]);
  }
  close(address_pipe[1]);
  close(end_pipe[0]);
  char buffer[4096];
  const ssize_t bytes = read(address_pipe[0], buffer, sizeof(buffer));
  if (bytes > 0) SendAll(options, std::string(buffer, bytes), label);
  close(end_pipe[1]);
  close(address_pipe[0]);
  waitpid(child, nullptr, 0);
}

}  // namespace
}  // namespace salamander::stream

int main() {
  using namespace salamander;
  // Before anything starts a thread: these fork.
  std::printf("UCX between two processes, GB/s by message size\n\n");
  std::printf("| transports | 64 KiB | 256 KiB | 1 MiB | 4 MiB | 16 MiB | 64 MiB |\n|---|---|---|---|---|---|---|\n");
  stream::BenchUcx("as configured (all)", "all");
  stream::BenchUcx("tcp for control, cma for bulk", "tcp,cma");
  stream::BenchUcx("tcp over lo", "tcp");
  std::printf("\nOne core, GB/s of raw bytes\n\n| | encode | decode | ratio |\n|---|---|---|---|\n");
  for (v1::ElementType type : {v1::ELEMENT_TYPE_BFLOAT16, v1::ELEMENT_TYPE_FLOAT32}) {
    for (const stream::TileKernels* kernels : stream::UsableTileKernels()) stream::BenchCodec(*kernels, type);
  }
  std::printf("\n| | GB/s |\n|---|---|\n");
  stream::BenchMemory();
  return 0;
}
