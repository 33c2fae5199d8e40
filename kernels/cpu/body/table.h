// All kernels, for one vector type.
#ifndef SALAMANDER_KERNELS_CPU_BODY_TABLE_H_
#define SALAMANDER_KERNELS_CPU_BODY_TABLE_H_

#include "kernels/cpu/body/attend.h"
#include "kernels/cpu/body/lightning.h"
#include "kernels/cpu/body/matmul.h"
#include "kernels/cpu/body/rows.h"
#include "kernels/cpu/body/select.h"
#include "kernels/cpu/body/select_token.h"
#include "kernels/cpu/kernel_table.h"

namespace salamander::kernels::body {

template <class V>
inline constexpr KernelTable kTable = {
    .matmul = MatMul<V>,
    .add_rms_norm = AddRmsNorm<V>,
    .head_norm_rope = HeadNormRope<V>,
    .norm_gate = NormGate<V>,
    .silu_mul = SiluMul<V>,
    .mean_of_rows = MeanOfRows<V>,
    .exp = ExpOf<V>,
    .exp2 = Exp2Of<V>,
    .lightning_chunks = LightningChunks<V>,
    .lightning_step = LightningStep<V>,
    .select_pack = SelectPack<V>,
    .select_coarse = SelectCoarse<V>,
    .select_combine = SelectCombine<V>,
    .select_fine = SelectFine<V>,
    .token_coarse = TokenCoarse<V>,
    .token_values = TokenValues<V>,
    .attend = Attend<V>,
};

}  // namespace salamander::kernels::body

#endif  // SALAMANDER_KERNELS_CPU_BODY_TABLE_H_
