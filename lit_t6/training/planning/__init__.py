"""What a training would be and take, before it runs: its settings, its size, its memory, its speed."""
