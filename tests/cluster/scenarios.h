// What several requests at once must and must not do to each other; run on clusters of both kinds.
#ifndef SALAMANDER_TESTS_CLUSTER_SCENARIOS_H_
#define SALAMANDER_TESTS_CLUSTER_SCENARIOS_H_

#include <cstdint>
#include <vector>

#include "tests/testing/cluster.h"

namespace salamander::testing {

// `count` requests of 1 to `longest` prompt tokens drawn from `seed`: every other one greedy, the others sampled with a
// seed of their own.
std::vector<v1::GenerateRequest> MixedRequests(int count, int64_t longest, int vocab_size, uint64_t seed);

// Each request alone, then all at once: the same tokens.
void ExpectSameTogetherAsAlone(Cluster& cluster, const std::vector<v1::GenerateRequest>& requests);

// All at once, every other one cancelled at a random moment: those not cancelled succeed, and every worker's ledger
// comes back to its start.
void ExpectCancelledRequestsLeaveNothing(Cluster& cluster, const std::vector<v1::GenerateRequest>& requests,
                                         uint64_t seed);

}  // namespace salamander::testing

#endif  // SALAMANDER_TESTS_CLUSTER_SCENARIOS_H_
