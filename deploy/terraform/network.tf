# Networks that are named reach the load balancer, it alone reaches the service, and the service
# alone reaches its file system. No rule names the whole internet.

resource "aws_security_group" "balancer" {
  name        = "${var.name}-balancer"
  description = "Load balancer of ${var.name}"
  vpc_id      = var.vpc_id
}

resource "aws_security_group" "service" {
  name        = "${var.name}-service"
  description = "Task of ${var.name}"
  vpc_id      = var.vpc_id
}

resource "aws_security_group" "results" {
  name        = "${var.name}-results"
  description = "File system of ${var.name}"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "https" {
  for_each          = toset(var.allowed_cidrs)
  security_group_id = aws_security_group.balancer.id
  description       = "HTTPS from a named network"
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_egress_rule" "balancer_to_service" {
  security_group_id            = aws_security_group.balancer.id
  description                  = "Requests to the service"
  referenced_security_group_id = aws_security_group.service.id
  ip_protocol                  = "tcp"
  from_port                    = local.port
  to_port                      = local.port
}

resource "aws_vpc_security_group_ingress_rule" "service_from_balancer" {
  security_group_id            = aws_security_group.service.id
  description                  = "Requests from the load balancer"
  referenced_security_group_id = aws_security_group.balancer.id
  ip_protocol                  = "tcp"
  from_port                    = local.port
  to_port                      = local.port
}

resource "aws_vpc_security_group_egress_rule" "service_to_results" {
  security_group_id            = aws_security_group.service.id
  description                  = "Its file system"
  referenced_security_group_id = aws_security_group.results.id
  ip_protocol                  = "tcp"
  from_port                    = local.nfs
  to_port                      = local.nfs
}

# ECR, CloudWatch and Secrets Manager by interface endpoints of the network, S3 by its prefix list.
resource "aws_vpc_security_group_egress_rule" "service_to_endpoints" {
  security_group_id = aws_security_group.service.id
  description       = "Interface endpoints in the network"
  cidr_ipv4         = data.aws_vpc.this.cidr_block
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_egress_rule" "service_to_stores" {
  for_each          = length(local.stores) == 0 ? {} : { PostgreSQL = 5432, Redis = 6379 }
  security_group_id = aws_security_group.service.id
  description       = "${each.key} in the network"
  cidr_ipv4         = data.aws_vpc.this.cidr_block
  ip_protocol       = "tcp"
  from_port         = each.value
  to_port           = each.value
}

data "aws_prefix_list" "s3" {
  name = "com.amazonaws.${var.region}.s3"
}

resource "aws_vpc_security_group_egress_rule" "service_to_s3" {
  security_group_id = aws_security_group.service.id
  description       = "S3 by the gateway endpoint"
  prefix_list_id    = data.aws_prefix_list.s3.id
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_ingress_rule" "results_from_service" {
  security_group_id            = aws_security_group.results.id
  description                  = "NFS from the task"
  referenced_security_group_id = aws_security_group.service.id
  ip_protocol                  = "tcp"
  from_port                    = local.nfs
  to_port                      = local.nfs
}

resource "aws_lb" "this" {
  #checkov:skip=CKV2_AWS_28:It is internal; only networks that are named reach it.
  name                       = var.name
  internal                   = true
  load_balancer_type         = "application"
  subnets                    = var.subnet_ids
  security_groups            = [aws_security_group.balancer.id]
  drop_invalid_header_fields = true
  enable_deletion_protection = true
  idle_timeout               = 120 # s; the progress of a training is a stream
  access_logs {
    bucket  = aws_s3_bucket.logs.id
    prefix  = local.log_prefix
    enabled = true
  }
  depends_on = [aws_s3_bucket_policy.logs]
}

resource "aws_lb_target_group" "this" {
  #checkov:skip=CKV_AWS_378:TLS ends at the load balancer; the last step stays between two security groups.
  name                 = var.name
  vpc_id               = var.vpc_id
  target_type          = "ip"
  port                 = local.port
  protocol             = "HTTP"
  deregistration_delay = 15
  health_check {
    path     = "/health/ready"
    interval = 10
    timeout  = 5
    matcher  = "200"
  }
}

resource "aws_lb_listener" "https" {
  load_balancer_arn = aws_lb.this.arn
  port              = 443
  protocol          = "HTTPS"
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-2021-06"
  certificate_arn   = var.certificate_arn
  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.this.arn
  }
}

output "address" {
  description = "Name of the load balancer, for a CNAME of the name in the certificate."
  value       = aws_lb.this.dns_name
}
