#include "common/stream/tile_kernels.h"

namespace salamander::stream {

const TileKernels* Avx512TileKernels() { return nullptr; }

}  // namespace salamander::stream
