// The CUDA backend. It lies in a library of its own, libsalamander_cuda.so, that is opened at run time: the same
// programs run where there is no CUDA. Needs no CUDA headers.
#ifndef SALAMANDER_KERNELS_CUDA_H_
#define SALAMANDER_KERNELS_CUDA_H_

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/ops.h"

namespace salamander::kernels {

// An Ops on GPU number `device` of those that CUDA shows. Several may share a GPU. FAILED_PRECONDITION, saying which,
// if the backend was not built or is of another build than this program, if there is no GPU or no driver, if the driver
// is too old for the backend, or if the backend has no code for this GPU; INVALID_ARGUMENT if `device` is out of range;
// RESOURCE_EXHAUSTED if the GPU lacks the memory that the backend keeps for itself.
absl::StatusOr<std::unique_ptr<Ops>> CreateCudaOps(int device);

}  // namespace salamander::kernels

#endif  // SALAMANDER_KERNELS_CUDA_H_
