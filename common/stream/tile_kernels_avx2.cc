#include "common/stream/tile_kernels.h"

namespace salamander::stream {

const TileKernels* Avx2TileKernels() { return nullptr; }

}  // namespace salamander::stream
