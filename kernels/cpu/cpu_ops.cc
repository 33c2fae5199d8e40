#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <oneapi/dnnl/dnnl.hpp>

#include "absl/strings/str_format.h"
#include "kernels/ops.h"

namespace salamander::kernels {
namespace {

float* RowOf(const Matrix& m, int64_t row) { return static_cast<float*>(m.data) + row * m.stride; }
float* Floats(std::byte* p) { return reinterpret_cast<float*>(p); }

const float* KeyAt(const KvLayout& kv, std::byte* const* pages, int64_t head, int64_t t) {
  const int64_t in_page = t % kPageTokens;
  return Floats(pages[t / kPageTokens] + kv.keys(in_page / kBlockTokens, head)) + in_page % kBlockTokens * kv.head_dim;
}
const float* ValueAt(const KvLayout& kv, std::byte* const* pages, int64_t head, int64_t t) {
  return KeyAt(kv, pages, head, t) + kBlockTokens * kv.head_dim;
}
const float* K1At(const KvLayout& kv, std::byte* const* pages, int64_t head, int64_t j) {
  return Floats(pages[j / kPageK1] + kv.k1(head, j % kPageK1));
}
const float* K2At(const KvLayout& kv, std::byte* const* pages, int64_t head, int64_t j) {
  return Floats(pages[j / kPageK2] + kv.k2(head, j % kPageK2));
}
float Dot(const float* a, const float* b, int64_t n) {
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}
float Sigmoid(float x) { return 1 / (1 + std::exp(-x)); }
float RmsFactor(const float* x, int64_t n, float eps) { return 1 / std::sqrt(Dot(x, x, n) / n + eps); }

class CpuWeight : public Weight {
 public:
  int64_t in_features() const override { return in; }
  int64_t out_features() const override { return out; }
  int64_t bytes() const override { return in * out * 4; }
  int64_t in = 0, out = 0;
  std::vector<float> data;
};

class CpuOps : public Ops {
 public:
  CpuOps(int threads, CpuIsa isa) : threads_(threads), isa_(isa) { omp_set_num_threads(1); }

  std::string name() const override { return absl::StrFormat("cpu (%s, %d threads)", CpuIsaName(isa_), threads_); }
  DType activation_type() const override { return DType::kFloat32; }

  absl::StatusOr<void*> Allocate(int64_t bytes) override {
    void* memory = std::aligned_alloc(64, (std::max<int64_t>(bytes, 1) + 63) / 64 * 64);
    if (memory == nullptr) return absl::ResourceExhaustedError(absl::StrFormat("no memory for %d bytes", bytes));
    return memory;
  }
  void Free(void* memory) override { std::free(memory); }
  absl::Status CopyToDevice(void* to, const void* from, int64_t bytes) override {
    std::memcpy(to, from, bytes);
    return absl::OkStatus();
  }
  absl::Status CopyToHost(void* to, const void* from, int64_t bytes) override {
    std::memcpy(to, from, bytes);
    return absl::OkStatus();
  }
  absl::Status Zero(void* memory, int64_t bytes) override {
    std::memset(memory, 0, bytes);
    return absl::OkStatus();
  }
  absl::Status Synchronize() override { return absl::OkStatus(); }

  absl::StatusOr<std::unique_ptr<Weight>> PrepareWeight(absl::Span<const WeightPart> parts) override {
    auto w = std::make_unique<CpuWeight>();
    for (const WeightPart& part : parts) {
      w->in = part.cols;
      w->out += part.rows;
      for (int64_t i = 0; i < part.rows * part.cols; ++i) {
        float value;
        if (part.type == DType::kFloat32) {
          std::memcpy(&value, static_cast<const char*>(part.data) + 4 * i, 4);
        } else {
          uint16_t half;
          std::memcpy(&half, static_cast<const char*>(part.data) + 2 * i, 2);
          const uint32_t bits = static_cast<uint32_t>(half) << 16;
          std::memcpy(&value, &bits, 4);
        }
        w->data.push_back(value);
      }
    }
    return w;
  }

  absl::Status MatMul(const Matrix& x, const Weight& weight, const float* bias, const Matrix& y) override {
    const auto& w = static_cast<const CpuWeight&>(weight);
    dnnl_sgemm('N', 'T', x.rows, w.out, w.in, 1, RowOf(x, 0), x.stride, w.data.data(), w.in, 0, RowOf(y, 0), y.stride);
    for (int64_t r = 0; bias != nullptr && r < x.rows; ++r) {
      for (int64_t c = 0; c < w.out; ++c) RowOf(y, r)[c] += bias[c];
    }
    return absl::OkStatus();
  }
  absl::Status MatMulLogits(const Matrix& x, const Weight& weight, float* logits, int64_t stride) override {
    return MatMul(x, weight, nullptr, {logits, x.rows, weight.out_features(), stride});
  }

  absl::Status Embed(absl::Span<const int32_t> tokens, const Weight& table, float scale,
                     const Matrix& hidden) override {
    const auto& w = static_cast<const CpuWeight&>(table);
    for (size_t i = 0; i < tokens.size(); ++i) {
      for (int64_t c = 0; c < w.in; ++c) RowOf(hidden, i)[c] = w.data[tokens[i] * w.in + c] * scale;
    }
    return absl::OkStatus();
  }

  absl::Status AddRmsNorm(const Matrix& hidden, const Matrix& delta, float delta_scale, const float* norm, float eps,
                          float x_scale, const Matrix& x) override {
    for (int64_t r = 0; r < hidden.rows; ++r) {
      float* h = RowOf(hidden, r);
      for (int64_t c = 0; delta.data != nullptr && c < hidden.cols; ++c) h[c] += delta_scale * RowOf(delta, r)[c];
      if (x.data == nullptr) continue;
      const float factor = RmsFactor(h, hidden.cols, eps) * x_scale;
      for (int64_t c = 0; c < hidden.cols; ++c) RowOf(x, r)[c] = h[c] * factor * norm[c];
    }
    return absl::OkStatus();
  }

  absl::Status HeadNormRope(const Matrix& x, int64_t head_dim, const float* norm, float eps, float theta,
                            absl::Span<const int64_t> positions) override {
    const int64_t half = head_dim / 2;
    for (int64_t r = 0; r < x.rows; ++r) {
      for (float* h = RowOf(x, r); h < RowOf(x, r) + x.cols; h += head_dim) {
        if (norm != nullptr) {
          const float factor = RmsFactor(h, head_dim, eps);
          for (int64_t i = 0; i < head_dim; ++i) h[i] *= factor * norm[i];
        }
        for (int64_t i = 0; theta != 0 && i < half; ++i) {
          const double angle = positions[r] * std::pow(static_cast<double>(theta), -2.0 * i / head_dim);
          const float c = std::cos(angle), s = std::sin(angle), a = h[i], b = h[half + i];
          h[i] = a * c - b * s;
          h[half + i] = b * c + a * s;
        }
      }
    }
    return absl::OkStatus();
  }

  absl::Status SiluMul(const Matrix& gate_up, const Matrix& out) override {
    for (int64_t r = 0; r < out.rows; ++r) {
      const float* g = RowOf(gate_up, r);
      for (int64_t c = 0; c < out.cols; ++c) RowOf(out, r)[c] = g[c] * Sigmoid(g[c]) * g[out.cols + c];
    }
    return absl::OkStatus();
  }

  absl::Status NormGate(const Matrix& x, const float* norm, float eps, const Matrix& gate) override {
    for (int64_t r = 0; r < x.rows; ++r) {
      float* row = RowOf(x, r);
      const float factor = norm != nullptr ? RmsFactor(row, x.cols, eps) : 1;
      for (int64_t c = 0; c < x.cols; ++c) {
        if (norm != nullptr) row[c] *= factor * norm[c];
        if (gate.data != nullptr) row[c] *= Sigmoid(RowOf(gate, r)[c]);
      }
    }
    return absl::OkStatus();
  }

  absl::Status Lightning(const LightningShape& shape, const Matrix& q, const Matrix& k, const Matrix& v,
                         absl::Span<const LightningRows> sequences, const Matrix& out) override {
    const int64_t d = shape.head_dim, group = shape.heads / shape.kv_heads;
    for (const LightningRows& seq : sequences) {
      for (int64_t h = 0; h < shape.heads; ++h) {
        float* state = seq.state + h * d * d;
        const float decay = std::exp(-shape.slopes[h]);
        for (int64_t r = seq.row; r < seq.row + seq.rows; ++r) {
          const float *qr = RowOf(q, r) + h * d, *kr = RowOf(k, r) + h / group * d, *vr = RowOf(v, r) + h / group * d;
          float* o = RowOf(out, r) + h * d;
          std::fill(o, o + d, 0.0f);
          for (int64_t i = 0; i < d; ++i) {
            for (int64_t j = 0; j < d; ++j) {
              float& s = state[i * d + j];
              s = decay * s + kr[i] * vr[j];
              o[j] += qr[i] * s;
            }
          }
          for (int64_t j = 0; j < d; ++j) o[j] *= shape.scale;
        }
      }
    }
    return absl::OkStatus();
  }

  absl::Status AppendKv(const SparseShape& shape, const Matrix& k, const Matrix& v,
                        absl::Span<const SparseRows> sequences) override {
    const KvLayout& kv = shape.kv;
    for (const SparseRows& seq : sequences) {
      for (int64_t i = 0; i < seq.rows; ++i) {
        for (int64_t g = 0; g < kv.kv_heads; ++g) {
          float* key = const_cast<float*>(KeyAt(kv, seq.pages, g, seq.position + i));
          std::memcpy(key, RowOf(k, seq.row + i) + g * kv.head_dim, kv.row_bytes());
          std::memcpy(key + kBlockTokens * kv.head_dim, RowOf(v, seq.row + i) + g * kv.head_dim, kv.row_bytes());
        }
      }
    }
    return absl::OkStatus();
  }

  absl::Status PoolTiers(const SparseShape& shape, std::byte* const* pages, int64_t from, int64_t to) override {
    const KvLayout& kv = shape.kv;
    for (int64_t g = 0; g < kv.kv_heads; ++g) {
      for (int64_t j = K1Count(from); j < K1Count(to); ++j) {
        Mean(kv, pages, g, j * kK1Stride, kK1Window, const_cast<float*>(K1At(kv, pages, g, j)));
      }
      for (int64_t j = K2Count(from); j < K2Count(to); ++j) {
        Mean(kv, pages, g, j * kK2Stride, kK2Window, const_cast<float*>(K2At(kv, pages, g, j)));
      }
    }
    return absl::OkStatus();
  }

  absl::Status SelectBlocks(const SparseShape& shape, const Matrix& q, absl::Span<const SparseRows> sequences,
                            int32_t* blocks) override {
    for (const SparseRows& seq : sequences) {
      for (int64_t i = 0; i < seq.rows; ++i) {
        for (int64_t g = 0; g < shape.kv.kv_heads; ++g) {
          Select(shape, RowOf(q, seq.row + i), seq.pages, g, seq.position + i,
                 blocks + ((seq.row + i) * shape.kv.kv_heads + g) * shape.top_blocks);
        }
      }
    }
    return absl::OkStatus();
  }

  absl::Status AttendBlocks(const SparseShape& shape, const Matrix& q, absl::Span<const SparseRows> sequences,
                            const int32_t* blocks, const Matrix& out) override {
    for (const SparseRows& seq : sequences) {
      for (int64_t r = seq.row; r < seq.row + seq.rows; ++r) {
        const int64_t t = seq.position + r - seq.row;
        for (int64_t g = 0; g < shape.kv.kv_heads; ++g) {
          const int32_t* chosen = blocks + (r * shape.kv.kv_heads + g) * shape.top_blocks;
          std::vector<int64_t> tokens;
          for (int64_t i = 0; i < shape.top_blocks && chosen[i] >= 0; ++i) {
            for (int64_t j = chosen[i] * kBlockTokens; j < (chosen[i] + 1) * kBlockTokens && j <= t; ++j) {
              tokens.push_back(j);
            }
          }
          Attend(shape, RowOf(q, r), seq.pages, g, tokens, RowOf(out, r));
        }
      }
    }
    return absl::OkStatus();
  }

  absl::Status AttendDense(const SparseShape& shape, const Matrix& q, absl::Span<const SparseRows> sequences,
                           const Matrix& out) override {
    for (const SparseRows& seq : sequences) {
      for (int64_t r = seq.row; r < seq.row + seq.rows; ++r) {
        std::vector<int64_t> tokens(seq.position + r - seq.row + 1);
        for (size_t j = 0; j < tokens.size(); ++j) tokens[j] = j;
        for (int64_t g = 0; g < shape.kv.kv_heads; ++g) Attend(shape, RowOf(q, r), seq.pages, g, tokens, RowOf(out, r));
      }
    }
    return absl::OkStatus();
  }

 private:
  static void Mean(const KvLayout& kv, std::byte* const* pages, int64_t g, int64_t begin, int64_t count, float* out) {
    std::fill(out, out + kv.head_dim, 0.0f);
    for (int64_t t = begin; t < begin + count; ++t) {
      for (int64_t i = 0; i < kv.head_dim; ++i) out[i] += KeyAt(kv, pages, g, t)[i];
    }
    for (int64_t i = 0; i < kv.head_dim; ++i) out[i] *= 1.0f / count;
  }

  static void Select(const SparseShape& shape, const float* q, std::byte* const* pages, int64_t g, int64_t t,
                     int32_t* out) {
    const int64_t d = shape.kv.head_dim, group = shape.heads / shape.kv.kv_heads, own = t / kBlockTokens;
    const float scale = 1 / std::sqrt(static_cast<float>(d));
    const int64_t fine = K1Count(t + 1), coarse = K2Count(t + 1);
    std::vector<float> score(fine, 0.0f), z(coarse);
    for (int64_t h = g * group; coarse > 0 && h < (g + 1) * group; ++h) {
      float most = -std::numeric_limits<float>::infinity(), sum = 0;
      for (int64_t j = 0; j < coarse; ++j) {
        z[j] = Dot(q + h * d, K2At(shape.kv, pages, g, j), d) * scale;
        most = std::max(most, z[j]);
      }
      for (int64_t j = 0; j < coarse; ++j) sum += std::exp(z[j] - most);
      const float lse = most + std::log(sum);
      for (int64_t j = 0; j < fine; ++j) {
        score[j] += std::exp(Dot(q + h * d, K1At(shape.kv, pages, g, j), d) * scale - lse);
      }
    }
    std::vector<std::pair<float, int32_t>> order;
    for (int64_t b = 0; b <= own; ++b) {
      float value = 0;
      for (int64_t j = std::max<int64_t>(0, 4 * b - 1); j < std::min(4 * b + 4, fine); ++j) {
        value = std::max(value, score[j]);
      }
      if (b < shape.init_blocks || b >= own - shape.local_blocks) value = std::numeric_limits<float>::infinity();
      order.emplace_back(-value, b);
    }
    std::sort(order.begin(), order.end());
    order.resize(std::min<size_t>(order.size(), shape.top_blocks));
    std::fill(out, out + shape.top_blocks, -1);
    for (size_t i = 0; i < order.size(); ++i) out[i] = order[i].second;
    std::sort(out, out + order.size());
  }

  static void Attend(const SparseShape& shape, const float* q, std::byte* const* pages, int64_t g,
                     const std::vector<int64_t>& tokens, float* out) {
    const int64_t d = shape.kv.head_dim, group = shape.heads / shape.kv.kv_heads;
    const float scale = 1 / std::sqrt(static_cast<float>(d));
    std::vector<float> s(tokens.size());
    for (int64_t h = g * group; h < (g + 1) * group; ++h) {
      float most = -std::numeric_limits<float>::infinity(), sum = 0;
      for (size_t i = 0; i < tokens.size(); ++i) {
        s[i] = Dot(q + h * d, KeyAt(shape.kv, pages, g, tokens[i]), d) * scale;
        most = std::max(most, s[i]);
      }
      std::fill(out + h * d, out + (h + 1) * d, 0.0f);
      for (size_t i = 0; i < tokens.size(); ++i) {
        const float p = std::exp(s[i] - most);
        sum += p;
        for (int64_t c = 0; c < d; ++c) out[h * d + c] += p * ValueAt(shape.kv, pages, g, tokens[i])[c];
      }
      for (int64_t c = 0; c < d && sum > 0; ++c) out[h * d + c] /= sum;
    }
  }

  int threads_;
  CpuIsa isa_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Ops>> CreateCpuOps(int threads, CpuIsa isa) {
  if (threads < 1) return absl::InvalidArgumentError(absl::StrFormat("threads must be at least 1, got %d", threads));
  if (isa > DetectCpuIsa()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("isa %s is not on this machine, the best is %s", CpuIsaName(isa), CpuIsaName(DetectCpuIsa())));
  }
  return std::make_unique<CpuOps>(threads, isa);
}

}  // namespace salamander::kernels
