"""What tools, KFD and amdgpu's sysfs say of AMD cards."""
