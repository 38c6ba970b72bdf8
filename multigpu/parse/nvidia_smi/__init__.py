"""What nvidia-smi prints: XML, text, CSV, tables and matrices of drivers 418 to 610."""
