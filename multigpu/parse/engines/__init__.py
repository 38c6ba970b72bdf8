"""Start-up logs of vLLM, SGLang and llama.cpp, and the model files they read."""
