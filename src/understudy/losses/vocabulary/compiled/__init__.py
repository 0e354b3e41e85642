"""The same losses by Triton kernels, for CUDA: nothing outside this folder imports Triton."""
