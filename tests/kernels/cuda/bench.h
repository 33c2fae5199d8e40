// What the benches of CUDA kernels share: time on the device, and one line per case with the floor beside it.
#ifndef SALAMANDER_TESTS_KERNELS_CUDA_BENCH_H_
#define SALAMANDER_TESTS_KERNELS_CUDA_BENCH_H_

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>

namespace salamander::kernels::cuda {

// Measured on an H200: cuBLASLt's largest products, and a device copy (read + written).
inline constexpr double kFlopsPerMicrosecond = 775e6;
inline constexpr double kBytesPerMicrosecond = 4.2e6;

inline void Check(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "CUDA: %s\n", cudaGetErrorString(error));
  std::exit(1);
}

// Device memory that lives as long as the program. Every byte is 0x3c, so that bf16 values are 0.0115 and nothing is
// infinite, denormal or NaN.
template <typename T>
T* BenchArray(int64_t size) {
  void* data = nullptr;
  Check(cudaMalloc(&data, size * sizeof(T)));
  Check(cudaMemset(data, 0x3c, size * sizeof(T)));
  return static_cast<T*>(data);
}

// Microseconds of one launch: the best of five replays of a graph of `launches`, which leaves out what the host needs
// to launch. launch(i, stream) can take other data for each i, so that the L2 cache (50 MB) does not serve it.
inline double Microseconds(const std::function<void(int, cudaStream_t)>& launch, int launches = 20) {
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t replay;
  cudaEvent_t begin, end;
  Check(cudaStreamCreate(&stream));
  Check(cudaEventCreate(&begin));
  Check(cudaEventCreate(&end));
  launch(0, stream);  // loads the kernels
  Check(cudaStreamSynchronize(stream));
  Check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < launches; ++i) launch(i, stream);
  Check(cudaStreamEndCapture(stream, &graph));
  Check(cudaGraphInstantiate(&replay, graph, 0));
  float best = 1e30f;
  for (int round = -1; round < 5; ++round) {  // the first to warm up
    float milliseconds = 0;
    Check(cudaEventRecord(begin, stream));
    Check(cudaGraphLaunch(replay, stream));
    Check(cudaEventRecord(end, stream));
    Check(cudaEventSynchronize(end));
    Check(cudaEventElapsedTime(&milliseconds, begin, end));
    if (round >= 0) best = std::min(best, milliseconds);
  }
  Check(cudaGraphExecDestroy(replay));
  Check(cudaGraphDestroy(graph));
  Check(cudaEventDestroy(begin));
  Check(cudaEventDestroy(end));
  Check(cudaStreamDestroy(stream));
  return best * 1e3 / launches;
}

// Name of the device and its copy bandwidth, for comparison with the floors' 4.2 TB/s; false without a GPU.
inline bool PrintDevice() {
  cudaDeviceProp properties;
  if (cudaGetDeviceProperties(&properties, 0) != cudaSuccess) {
    std::printf("no GPU\n");
    return false;
  }
  constexpr int64_t kBytes = int64_t{1} << 30;
  void *from = nullptr, *to = nullptr;
  Check(cudaMalloc(&from, kBytes));
  Check(cudaMalloc(&to, kBytes));
  const double copy = Microseconds(
      [&](int, cudaStream_t stream) { Check(cudaMemcpyAsync(to, from, kBytes, cudaMemcpyDeviceToDevice, stream)); });
  Check(cudaFree(from));
  Check(cudaFree(to));
  std::printf("%s, %d multiprocessors, copies %.2f TB/s (read + written)\n", properties.name,
              properties.multiProcessorCount, 2 * kBytes / copy * 1e-6);
  std::printf("%-48s %12s %12s %8s\n", "case", "us", "floor us", "ratio");
  return true;
}

// One line; the floor is the larger of the time for the arithmetic and for the bytes.
inline void Report(const std::string& name, double microseconds, double flops, double bytes) {
  const double floor = std::max(flops / kFlopsPerMicrosecond, bytes / kBytesPerMicrosecond);
  std::printf("%-48s %12.2f %12.2f %8.2f\n", name.c_str(), microseconds, floor, microseconds / floor);
  std::fflush(stdout);
}

}  // namespace salamander::kernels::cuda

#endif  // SALAMANDER_TESTS_KERNELS_CUDA_BENCH_H_
