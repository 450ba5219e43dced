"""What keeps jobs alive over crashes."""
