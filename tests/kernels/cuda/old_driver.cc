// A libcuda.so.1 of long ago, as far as the CUDA runtime asks before it gives up: it is for CUDA 11.4.
extern "C" {

__attribute__((visibility("default"))) int cuDriverGetVersion(int* version) {
  *version = 11040;
  return 0;
}

__attribute__((visibility("default"))) int cuInit(unsigned) { return 0; }

}  // extern "C"
