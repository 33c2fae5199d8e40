// Looks into certificate files, to say at start what would otherwise show as a failed handshake.
#ifndef SALAMANDER_COMMON_SERVICE_CERTIFICATE_H_
#define SALAMANDER_COMMON_SERVICE_CERTIFICATE_H_

#include <openssl/types.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/service/security.h"

namespace salamander::service {

struct CertificateInfo {
  std::string subject;  // its common name
  // DNS names and IP addresses it is good for.
  std::vector<std::string> names;
  absl::Time not_before, not_after;
};

CertificateInfo DescribeCertificate(const X509& certificate);
// Of the first certificate of a PEM file, which is its owner's. An error names the file.
absl::StatusOr<CertificateInfo> ReadCertificate(const std::string& path);

// OK if the files that are named can be read and hold what they should, belong together and are valid now.
// INVALID_ARGUMENT naming flag and file otherwise.
absl::Status CheckTlsFiles(const TlsFiles& files);
// The same for a process that listens, which needs all three or none.
absl::Status CheckServerTlsFiles(const TlsFiles& files);

}  // namespace salamander::service

#endif  // SALAMANDER_COMMON_SERVICE_CERTIFICATE_H_
