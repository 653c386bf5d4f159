"""What people read: conclusions, and pages that hold them."""
