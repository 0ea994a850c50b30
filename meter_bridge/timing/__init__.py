"""From the device's clock to UTC."""
