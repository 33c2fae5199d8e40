#include "common/stream/tile_kernels.h"

#include <bit>

#include "common/stream/tile_scalar.h"

namespace salamander::stream {
namespace {

static_assert(std::endian::native == std::endian::little, "the loops take elements as the processor has them");

template <typename Element>
size_t Encode(const std::byte* elements, size_t n, uint8_t max_exponent, size_t most_escapes, const TileParts& parts) {
  return ScalarEncode<Element>(elements, n, max_exponent, most_escapes, 0, parts);
}

template <typename Element>
bool Decode(const ConstTileParts& parts, size_t escapes, uint8_t max_exponent, size_t n, std::byte* elements) {
  return ScalarDecode<Element>(parts, escapes, 0, max_exponent, n, elements);
}

template <typename Element>
constexpr ElementKernels kScalar{&ScalarMaxExponent<Element>, &Encode<Element>, &Decode<Element>};

bool HasAvx2() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2");
#else
  return false;
#endif
}

bool HasAvx512() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi") &&
         __builtin_cpu_supports("avx512vbmi2");
#else
  return false;
#endif
}

}  // namespace

const TileKernels& PortableTileKernels() {
  static constexpr TileKernels kernels{"portable", kScalar<Bfloat16Element>, kScalar<Float32Element>};
  return kernels;
}

const std::vector<const TileKernels*>& UsableTileKernels() {
  static const auto* const usable = [] {
    auto* kernels = new std::vector<const TileKernels*>;
    if (Avx512TileKernels() != nullptr && HasAvx512()) kernels->push_back(Avx512TileKernels());
    if (Avx2TileKernels() != nullptr && HasAvx2()) kernels->push_back(Avx2TileKernels());
    kernels->push_back(&PortableTileKernels());
    return kernels;
  }();
  return *usable;
}

}  // namespace salamander::stream
