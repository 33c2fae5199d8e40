// Draws for tests that have logits and no model.
#ifndef SALAMANDER_TESTS_COMMON_ENGINE_DRAW_ON_CPU_H_
#define SALAMANDER_TESTS_COMMON_ENGINE_DRAW_ON_CPU_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "common/engine/sampler.h"
#include "kernels/ops.h"

namespace salamander::engine {

struct CpuDraw {
  Draw draw;  // its `top` is the one below
  std::vector<kernels::TokenLogprob> top;
};

// From one row of logits.
inline CpuDraw DrawOnCpu(std::vector<float> logits, const DrawRequests& requests) {
  static const std::unique_ptr<kernels::Ops> ops = *kernels::CreateCpuOps(1);
  const auto vocab = static_cast<int64_t>(logits.size());
  CpuDraw result;
  result.top.resize(std::clamp<int64_t>(requests.rows[0].logprobs, 0, vocab));
  kernels::SampledToken sampled;
  EXPECT_TRUE(ops->Sample({logits.data(), 1, vocab, vocab}, requests.rows, requests.edits, &sampled, result.top.data(),
                          static_cast<int64_t>(result.top.size()))
                  .ok());
  result.draw = {sampled.token, sampled.logprob, result.top};
  return result;
}

}  // namespace salamander::engine

#endif  // SALAMANDER_TESTS_COMMON_ENGINE_DRAW_ON_CPU_H_
