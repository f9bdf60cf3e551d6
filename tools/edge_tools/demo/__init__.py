"""`./tools/demo`: two emulated boards, the real gateway and a mosquitto that stands for the cloud, on one machine."""
