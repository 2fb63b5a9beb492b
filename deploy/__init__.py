"""What operators copy: policies, dashboards, alerts."""
