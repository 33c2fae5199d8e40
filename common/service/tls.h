// gRPC credentials from certificate files that may be renewed at any time.
#ifndef SALAMANDER_COMMON_SERVICE_TLS_H_
#define SALAMANDER_COMMON_SERVICE_TLS_H_

#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/security/tls_certificate_provider.h>

#include <memory>

#include "common/service/security.h"

namespace salamander::service {

// Has a thread that looks at the files. Null if `files` is empty; otherwise the same for all that ask with the same
// files while one of them holds it, as whoever uses the credentials below should.
using CertificateWatch = grpc::experimental::FileWatcherCertificateProvider;
std::shared_ptr<CertificateWatch> WatchCertificates(const TlsFiles& files);

// Plain text if `files` is empty. The files have passed CheckTlsFiles. Files that no longer do when they change stop
// new connections, with a line in the log, until they do again; so replace them in one step, by renaming.
std::shared_ptr<grpc::ChannelCredentials> ChannelCredentials(const TlsFiles& files);
std::shared_ptr<grpc::ServerCredentials> ServerCredentials(const TlsFiles& files);

}  // namespace salamander::service

#endif  // SALAMANDER_COMMON_SERVICE_TLS_H_
